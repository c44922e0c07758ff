//! Types as people read them.

use invar_syntax::{Field, Type};

/// The type of a field, its choices spelled out: `list(string)`, `"http" | "https"`.
#[must_use]
pub fn type_text(field: &Field) -> String {
    let choices = field.choices();
    if choices.is_empty() || choices.len() > MAX_CHOICES {
        return of(&field.ty);
    }
    let choices = choices.iter().map(|choice| format!("{choice:?}")).collect::<Vec<_>>().join(" | ");
    if matches!(field.ty, Type::List(_)) { format!("list({choices})") } else { choices }
}

/// More than this many choices are left to the description.
const MAX_CHOICES: usize = 5;

fn of(ty: &Type) -> String {
    match ty {
        Type::List(element) => format!("list({})", of(element)),
        Type::Map(element) => format!("map({})", of(element)),
        Type::Capsule(name) => (*name).to_owned(),
        Type::Object(fields) if !fields.is_empty() => {
            let fields: Vec<String> = fields.iter().map(|(name, ty)| format!("{name}: {}", of(ty))).collect();
            format!("{{{}}}", fields.join(", "))
        }
        Type::Enum(_) => "string".to_owned(),
        other => other.to_string(),
    }
}

/// A bare type as people read it.
pub(crate) fn plain_type_text(ty: &Type) -> String {
    of(ty)
}
