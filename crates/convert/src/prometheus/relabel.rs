//! Relabelling rules, for targets, samples and endpoints alike.

use invar_syntax::Value;

use super::scalar::{number, texts};
use crate::block::Block;
use crate::report::Report;
use crate::yaml::Node;

/// Adds the rules of a list as blocks of the given name.
pub(crate) fn rules(list: &Node, name: &'static str, block: &mut Block, report: &mut Report) {
    for (index, rule) in list.items().iter().enumerate() {
        let fields = rule.fields(&format!("relabelling rule {}", index + 1), report);
        let mut nested = Block::default();
        nested.set_some("source_labels", texts(&fields, "source_labels", report));
        for field in ["separator", "regex", "target_label", "replacement"] {
            // A null is an empty text here, which differs from the default.
            let text = fields.text(field, report).or_else(|| fields.has(field).then(String::new));
            nested.set_some(field, text.map(Value::string));
        }
        nested.set_some("modulus", number(&fields, "modulus", report));
        let action = fields.text("action", report).map(|action| action.to_lowercase());
        nested.set_some("action", action.map(Value::string));
        fields.finish(report);
        block.add(name, nested);
    }
}
