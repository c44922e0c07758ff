//! What a plan says of each change beside the change itself: listening sockets, parting instances, and what the component
//! has to say.

use foldhash::{HashMap, HashSet};

use crate::context::Check;
use crate::definition::AnyArc;
use crate::evaluate::guarded;
use crate::generation::{Generation, Unit};
use crate::graph::GraphNode;
use crate::plan::{Action, Change};

/// The remark on arguments that use exports of a node that does not run yet.
pub(crate) const KNOWN_AFTER_PREPARE: &str = "some arguments are known only after preparing";

/// Who listens where: now, and after the change as far as that is known.
pub(crate) struct Addresses {
    /// The component that listens there now.
    now: HashMap<String, String>,
    /// What each component that listens now listens on.
    of: HashMap<String, Vec<String>>,
    then: HashSet<String>,
    /// Whether some component's addresses are known only after preparing.
    open: bool,
}

impl Addresses {
    /// Of what runs. Only those that listen are asked.
    pub(crate) fn of(base: &Generation) -> Self {
        let mut found =
            Self { now: HashMap::default(), of: HashMap::default(), then: HashSet::default(), open: false };
        for (node, slot) in base.graph.nodes.iter().zip(&base.slots) {
            let Some(unit) = slot.unit().filter(|unit| !unit.loans.is_empty()) else { continue };
            let mut check = Check::new(node.minimum_stability);
            // It passed this check before it ran.
            let _passed = guarded(node, || unit.cell.definition().check(&unit.arguments, &mut check));
            for address in &check.addresses {
                found.now.insert(address.clone(), node.id.to_string());
            }
            found.of.insert(node.id.to_string(), check.addresses);
        }
        found
    }

    /// Notes what a component will listen on; none if that is not known yet.
    pub(crate) fn claim(&mut self, addresses: Option<&[String]>) {
        match addresses {
            Some(addresses) => self.then.extend(addresses.iter().cloned()),
            None => self.open = true,
        }
    }
}

/// Adds the notes on one change. `before` is what runs, `after` what will, with the addresses it wants.
pub(crate) fn annotate(
    change: &mut Change,
    node: &GraphNode,
    before: Option<&Unit>,
    after: Option<(&AnyArc, &[String])>,
    addresses: &Addresses,
) {
    if change.action == Action::Keep {
        return;
    }
    let name = change.node.as_str();
    let old = before.and_then(|_| addresses.of.get(name)).map_or(&[][..], Vec::as_slice);
    let notes = &mut change.notes;
    match change.action {
        Action::Replace => notes.push(
            "another instance takes over; the old one takes nothing more, and drains once the change is committed"
                .to_owned(),
        ),
        Action::Destroy => {
            notes.push("takes nothing more, and drains once the change is committed".to_owned());
        }
        Action::Keep | Action::Update | Action::Create => {}
    }
    for address in after.map_or(&[][..], |(_, addresses)| addresses) {
        notes.push(match addresses.now.get(address) {
            Some(owner) if owner == name => {
                format!("the socket on {address} stays open and is handed over: no connection is refused")
            }
            Some(owner) => format!(
                "the socket on {address} stays open and is handed over from {owner}: no connection is refused"
            ),
            None => format!("{address} is newly bound, before the swap"),
        });
    }
    if change.action == Action::Destroy || after.is_some() {
        for address in old.iter().filter(|address| !addresses.then.contains(*address)) {
            notes.push(if addresses.open {
                format!("{address} may be closed: who else will listen there is known only after preparing")
            } else {
                format!("{address} answers 503 from the swap on and is closed once the change is committed")
            });
        }
    }
    let known = after.is_some() || change.action == Action::Destroy;
    if let Some(definition) = node.component().filter(|_| known) {
        let before = before.map(|unit| &unit.arguments);
        // A panic in it would be a panic in preparing as well, and is reported there.
        let own = guarded(node, || definition.plan_notes(before, after.map(|(arguments, _)| arguments)));
        notes.extend(own.unwrap_or_default());
    }
}
