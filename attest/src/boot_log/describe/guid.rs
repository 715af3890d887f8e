//! GUIDs as UEFI keeps them in memory (UEFI 2.10 appendix A): the first three fields little endian.

/// `8be4df61-93ca-11d2-aa0d-00e098032b8c`.
pub(super) fn text(guid: [u8; 16]) -> String {
    let [a, b, c, d, e, f, g, h, rest @ ..] = guid;
    let (node, tail) = rest.split_at(2);
    format!(
        "{}-{}-{}-{}-{}",
        hex::encode([d, c, b, a]),
        hex::encode([f, e]),
        hex::encode([h, g]),
        hex::encode(node),
        hex::encode(tail)
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_guid_is_written_as_people_know_it() {
        let global = crate::boot_log::claims::EFI_GLOBAL_VARIABLE;
        assert_eq!(super::text(global), "8be4df61-93ca-11d2-aa0d-00e098032b8c");
    }
}
