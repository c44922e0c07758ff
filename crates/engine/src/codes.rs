//! The codes of the engine's diagnostics.

/// No component type has that name.
pub const UNKNOWN_COMPONENT: &str = "E201";
/// A component block has no label.
pub const MISSING_LABEL: &str = "E202";
/// Two blocks make the same node.
pub const DUPLICATE: &str = "E203";
/// A reference leads to no component.
pub const UNKNOWN_REFERENCE: &str = "E204";
/// Components refer to each other in a circle, or one to itself.
pub const CYCLE: &str = "E205";
/// A block of the language that this version does not have.
pub const UNSUPPORTED: &str = "E206";
/// An attribute stands outside of any block.
pub const STRAY_ATTRIBUTE: &str = "E207";
/// A component is less settled than allowed.
pub const STABILITY: &str = "E208";
/// A community component is not allowed.
pub const COMMUNITY: &str = "E209";
/// The component's own check refuses the arguments.
pub const REFUSED: &str = "E210";
/// Two components would listen on the same address.
pub const ADDRESS_TAKEN: &str = "E211";
/// An instance or state could not be made.
pub const NOT_PREPARED: &str = "E212";
/// An import does not say what to import, or that cannot be had.
pub const IMPORT: &str = "E213";
/// A block stands where it may not.
pub const MISPLACED: &str = "E214";
/// Modules, custom components or templates are nested too deep, or make too many components.
pub const TOO_DEEP: &str = "E215";
/// A custom component is given an argument that it has not, or lacks one that it needs.
pub const ARGUMENT: &str = "E216";
/// The ceiling of the host's settings does not allow it.
pub const NOT_ALLOWED: &str = "E217";
/// Which secret is meant is not known before anything runs.
pub const SECRET_REFERENCE: &str = "E218";
/// A secret is not to be had.
pub const SECRET_UNAVAILABLE: &str = "E219";
/// A component that Alloy has and this binary lacks.
pub const NOT_AVAILABLE: &str = "E220";
/// A function is used under a name that is going to vanish.
pub const DEPRECATED: &str = "W401";
/// A component's name hides one of the standard library.
pub const SHADOWED: &str = "W402";
/// The component accepts its arguments and doubts that they are meant so.
pub const DOUBTFUL: &str = "W403";
/// A `declare` that nothing uses.
pub const UNUSED_DECLARE: &str = "W404";
/// An `import.*` that nothing uses.
pub const UNUSED_IMPORT: &str = "W405";
/// An `argument` that nothing uses.
pub const UNUSED_ARGUMENT: &str = "W406";
/// A secret argument is given as a literal.
pub const SECRET_IN_TEXT: &str = "W407";
/// A text looks like a token or a private key.
pub const CREDENTIAL: &str = "W408";
/// An address holds a password.
pub const PASSWORD_IN_URL: &str = "W409";
/// A component that an agent refuses unless told to allow it.
pub const NEEDS_PERMISSION: &str = "W410";
/// What is imported could not be read, and was not checked.
pub const UNREAD_IMPORT: &str = "W411";
