//! Evaluation order and cycles.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::GraphNode;

/// Indices with dependencies before dependants, in source order where that leaves a choice; or the circles that prevent it,
/// each in source order.
pub(super) fn sort(nodes: &[GraphNode]) -> Result<Vec<u32>, Vec<Vec<u32>>> {
    let mut missing: Vec<usize> = nodes.iter().map(|node| node.references.len()).collect();
    let mut ready: BinaryHeap<Reverse<u32>> =
        indices(nodes.len()).filter(|index| missing[*index as usize] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(nodes.len());
    while let Some(Reverse(index)) = ready.pop() {
        order.push(index);
        for dependant in &nodes[index as usize].dependants {
            let missing = &mut missing[*dependant as usize];
            *missing -= 1;
            if *missing == 0 {
                ready.push(Reverse(*dependant));
            }
        }
    }
    if order.len() == nodes.len() {
        Ok(order)
    } else {
        Err(circles(nodes.len(), |node| &nodes[node].references))
    }
}

fn indices(count: usize) -> impl Iterator<Item = u32> {
    (0..count).map(|index| u32::try_from(index).unwrap_or(u32::MAX))
}

/// The strongly connected components of more than one node, by Tarjan's algorithm on an explicit stack.
pub(super) fn circles<'a>(count: usize, edges: impl Fn(usize) -> &'a [u32]) -> Vec<Vec<u32>> {
    const UNSEEN: u32 = u32::MAX;
    let mut number = vec![UNSEEN; count];
    let mut low = vec![0; count];
    let mut on_stack = vec![false; count];
    let mut stack = Vec::new();
    let mut next = 0;
    let mut found = Vec::new();
    for root in indices(count) {
        if number[root as usize] != UNSEEN {
            continue;
        }
        let mut path = vec![(root, 0)];
        while let Some((node, edge)) = path.pop() {
            let at = node as usize;
            if edge == 0 {
                number[at] = next;
                low[at] = next;
                next += 1;
                stack.push(node);
                on_stack[at] = true;
            }
            if let Some(target) = edges(at).get(edge) {
                path.push((node, edge + 1));
                let target_at = *target as usize;
                if number[target_at] == UNSEEN {
                    path.push((*target, 0));
                } else if on_stack[target_at] {
                    low[at] = low[at].min(number[target_at]);
                }
                continue;
            }
            if low[at] == number[at] {
                let start = stack.iter().rposition(|other| *other == node).unwrap_or(0);
                let mut circle = stack.split_off(start);
                circle.iter().for_each(|member| on_stack[*member as usize] = false);
                if circle.len() > 1 {
                    circle.sort_unstable();
                    found.push(circle);
                }
            }
            if let Some((parent, _)) = path.last() {
                let parent = *parent as usize;
                low[parent] = low[parent].min(low[at]);
            }
        }
    }
    found.sort_unstable();
    found
}
