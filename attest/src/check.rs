//! The one place where a check decides.
//!
//! Every security check of this project asks [`violated`] with its finding's id. In a build with the `mutants` feature
//! (tests only, never with optimisations on) one check can be removed by its id, so that a test that stays green without its check is found.

/// True when the check named `id` is violated.
#[must_use]
#[inline]
pub fn violated(id: &'static str, bad: bool) -> bool {
    #[cfg(feature = "mutants")]
    if removed() == Some(id) {
        return false;
    }
    let _ = id;
    bad
}

#[cfg(all(feature = "mutants", not(debug_assertions)))]
compile_error!("the `mutants` feature removes security checks: it exists for debug builds under test only");

/// The id of the check that this process runs without.
#[cfg(feature = "mutants")]
fn removed() -> Option<&'static str> {
    use std::sync::OnceLock;
    static REMOVED: OnceLock<Option<String>> = OnceLock::new();
    REMOVED.get_or_init(|| std::env::var("HOSTMARK_REMOVED_CHECK").ok()).as_deref()
}
