//! Windows' boot loader: tagged events (SIPA) in PCR 11 to 14, as the Windows SDK's `wbcl.h` lays them out.
//!
//! Parsed and named, so that a log of such a host reads; nothing here is judged. An event's data is a run of (type, size, data);
//! a type with the aggregation bit holds such a run itself.

use crate::bytes::Reader;

/// Types with this bit hold further items.
const AGGREGATION: u32 = 0x4000_0000;
/// Deepest nesting that is followed: trust boundaries hold modules, which hold authorities.
const DEPTH_MAX: usize = 4;
/// Most items of one event.
const ITEMS_MAX: usize = 512;

/// Items whose value tells how the loader was set up.
const NAMES: [(u32, &str); 30] = [
    (0x0002_0002, "boot-counter"),
    (0x0002_0005, "bitlocker-unlock"),
    (0x0002_0009, "application-svn"),
    (0x0004_0001, "boot-debugging"),
    (0x0004_0002, "boot-revocation-list"),
    (0x0005_0001, "os-kernel-debug"),
    (0x0005_0002, "code-integrity"),
    (0x0005_0003, "test-signing"),
    (0x0005_0004, "data-execution-prevention"),
    (0x0005_0005, "safe-mode"),
    (0x0005_0006, "winpe"),
    (0x0005_0009, "system-root"),
    (0x0005_000a, "hypervisor-launch-type"),
    (0x0005_000c, "hypervisor-iommu-policy"),
    (0x0005_000d, "hypervisor-debug"),
    (0x0005_000e, "driver-load-policy"),
    (0x0005_0010, "hypervisor-mmio-nx-policy"),
    (0x0005_0011, "hypervisor-msr-filter-policy"),
    (0x0005_0012, "vsm-launch-type"),
    (0x0005_0014, "smt-status"),
    (0x0005_0021, "flight-signing"),
    (0x0005_0024, "hibernation-disabled"),
    (0x0005_0025, "dumps-disabled"),
    (0x0005_0030, "vbs-vsm-required"),
    (0x0005_0031, "vbs-secureboot-required"),
    (0x0005_0032, "vbs-iommu-required"),
    (0x0005_0035, "vbs-mandatory-enforcement"),
    (0x0005_0036, "vbs-hvci-policy"),
    (0x0007_0001, "module"),
    (0x0007_0004, "module-authenticode"),
];

/// The named items of one event, depth first, each with its value.
pub(super) fn items(data: &[u8]) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    let mut budget = ITEMS_MAX;
    walk(data, DEPTH_MAX, &mut budget, &mut found);
    found
}

fn walk(data: &[u8], depth: usize, budget: &mut usize, found: &mut Vec<(&'static str, String)>) {
    let mut reader = Reader::new(data);
    while let Some((kind, value)) = item(&mut reader) {
        let Some(left) = budget.checked_sub(1) else { return };
        *budget = left;
        if kind & AGGREGATION != 0 {
            if let Some(depth) = depth.checked_sub(1) {
                walk(value, depth, budget, found);
            }
        } else if let Some((_, name)) = NAMES.iter().find(|(known, _)| *known == kind) {
            found.push((*name, value_text(name, value)));
        }
    }
}

fn item<'a>(reader: &mut Reader<'a>) -> Option<(u32, &'a [u8])> {
    let kind = reader.le32("an item's type").ok()?;
    let size = usize::try_from(reader.le32("an item's size").ok()?).ok()?;
    Some((kind, reader.take(size, "an item").ok()?))
}

/// A path as text, a number up to eight bytes in decimal, anything else in hex.
fn value_text(name: &str, value: &[u8]) -> String {
    if matches!(name, "module" | "system-root") {
        return super::device_path::utf16(value);
    }
    if value.len() <= 8 {
        let mut number = [0u8; 8];
        number.iter_mut().zip(value).for_each(|(to, from)| *to = *from);
        return u64::from_le_bytes(number).to_string();
    }
    hex::encode(value.get(..64).unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::items;

    fn item(kind: u32, data: &[u8]) -> Vec<u8> {
        let size = u32::try_from(data.len()).unwrap();
        [&kind.to_le_bytes(), size.to_le_bytes().as_slice(), data].concat()
    }

    #[test]
    fn what_the_loader_was_told_is_named_at_any_depth() {
        let module: Vec<u8> = "\\Windows\\x.exe\0".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let inner = [item(0x0007_0001, &module), item(0x0005_0003, &[1])].concat();
        let data =
            [item(0x4001_0001, &item(0x4001_0003, &inner)), item(0x0005_0001, &[0]), item(0x0099_0001, &[1])].concat();
        let expect = [("module", "\\Windows\\x.exe"), ("test-signing", "1"), ("os-kernel-debug", "0")];
        assert_eq!(items(&data), expect.map(|(name, value)| (name, value.to_owned())));
        // A size beyond the data, and more nesting than there is, end the walk.
        assert!(items(&[1, 0, 5, 0, 0xff, 0xff, 0xff, 0xff, 1]).is_empty());
        let deep = (0..10).fold(item(0x0005_0001, &[1]), |data, _| item(0x4001_0001, &data));
        assert!(items(&deep).is_empty());
    }
}
