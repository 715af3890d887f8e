//! The kernel's command line as the kernel reads it.
//!
//! Linux `lib/cmdline.c` (`next_arg`) and `kernel/params.c` (`parse_args`): parameters are separated by space outside of double
//! quotes, and what follows a lone `--` is for PID 1. Establishes what the kernel takes for a parameter of its own; not that a
//! kernel knows it, nor that the text was the booted kernel's, which is the boot log's to prove.

/// The parameters of the kernel itself, in order, as `name` or `name=value`, without the quotes around a value or a whole parameter.
pub fn kernel_parameters(line: &str) -> impl Iterator<Item = &str> {
    let mut rest = line;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(is_space);
        let mut quoted = false;
        let end = rest.find(|c: char| {
            quoted ^= c == '"';
            is_space(c) && !quoted
        });
        let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
        rest = after;
        (!word.is_empty()).then_some(word)
    })
    .take_while(|word| *word != "--")
    .map(|word| word.strip_prefix('"').map_or(word, |inner| inner.strip_suffix('"').unwrap_or(inner)))
}

/// The values that a parameter is given, in order.
pub fn values<'a>(line: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    kernel_parameters(line).filter_map(move |word| {
        let value = word.strip_prefix(name)?.strip_prefix('=')?;
        Some(value.strip_prefix('"').map_or(value, |inner| inner.strip_suffix('"').unwrap_or(inner)))
    })
}

/// Whether the kernel starts with its built-in IMA policy `tcb` (`ima_policy=` takes several, separated by `|`).
#[must_use]
pub fn boots_with_tcb(line: &str) -> bool {
    values(line, "ima_policy").any(|value| value.split([' ', '|', '\n']).any(|one| one == "tcb"))
}

/// `isspace` of the kernel.
const fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t'..='\r' | '\u{a0}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_takes_for_its_own_parameter() {
        for (line, expect) in [
            ("ima_policy=tcb", true),
            ("console=ttyS0  ima_policy=tcb panic=-1", true),
            ("ima_policy=critical_data|tcb", true),
            ("ima_policy=\"critical_data tcb\"", true),
            ("\"ima_policy=tcb\"", true),
            ("ima_policy=secure_boot ima_policy=tcb", true),
            ("", false),
            ("ima_policy", false),
            ("ima_policy=", false),
            ("ima_policy=tcbx", false),
            ("ima_policy=appraise_tcb", false),
            ("xima_policy=tcb", false),
            ("ima_policy_x=tcb", false),
            ("note=\"boot with ima_policy=tcb next time\"", false),
            ("panic=-1 -- ima_policy=tcb", false),
        ] {
            assert_eq!(boots_with_tcb(line), expect, "{line}");
        }
        assert_eq!(kernel_parameters(" a \"b c\" d=\"e f\" -- g").collect::<Vec<_>>(), ["a", "b c", "d=\"e f\""]);
    }
}
