//! Device paths as text: UEFI 2.10 section 10 (binary form) and 10.6 (text form).
//!
//! For display. In an event of a started program the path is not hashed; in a boot option it is. Nodes that are not known here
//! are written by their numbers, so that nothing is left out silently.

use super::guid;
use crate::bytes::Reader;

/// Most nodes that are written: real paths have fewer than ten.
const NODES_MAX: usize = 32;
/// Most characters of a whole path.
const TEXT_MAX: usize = 512;

/// The text of a path, up to its end node or where it stops being one.
pub(super) fn text(bytes: &[u8]) -> String {
    let mut reader = Reader::new(bytes);
    let mut out = String::new();
    for _ in 0..NODES_MAX {
        let Some((kind, subtype, data)) = node(&mut reader) else { break };
        if kind == 0x7f {
            break;
        }
        if !out.is_empty() {
            out.push('/');
        }
        out.push_str(&node_text(kind, subtype, data));
        if out.len() > TEXT_MAX {
            break;
        }
    }
    out
}

/// Type, subtype and data of the next node.
fn node<'a>(reader: &mut Reader<'a>) -> Option<(u8, u8, &'a [u8])> {
    let kind = reader.u8("a node's type").ok()?;
    let subtype = reader.u8("a node's subtype").ok()?;
    let length = usize::from(reader.le16("a node's length").ok()?).checked_sub(4)?;
    Some((kind, subtype, reader.take(length, "a node").ok()?))
}

fn node_text(kind: u8, subtype: u8, data: &[u8]) -> String {
    let known = match (kind, subtype) {
        (4, 4) => Some(utf16(data)),
        (1, 1) => pci(data),
        (2, 1) => acpi(data),
        (3, 5) => pair(data).map(|(port, interface)| format!("USB({port},{interface})")),
        (3, 2) => scsi(data),
        (3, 0x12) => sata(data),
        (3, 0x17) => nvme(data),
        (3, 0x0b) => data.get(..6).map(|mac| format!("MAC({})", hex::encode(mac))),
        (3, 0x18) => Some(format!("Uri({})", String::from_utf8_lossy(data))),
        (4, 1) => partition(data),
        (4, 6) => first_guid(data).map(|guid| format!("FvFile({guid})")),
        (4, 7) => first_guid(data).map(|guid| format!("Fv({guid})")),
        (4, 8) => offset_range(data),
        (1, 4) => first_guid(data).map(|guid| format!("VenHw({guid})")),
        (3, 10) => first_guid(data).map(|guid| format!("VenMsg({guid})")),
        (4, 3) => first_guid(data).map(|guid| format!("VenMedia({guid})")),
        _ => None,
    };
    known.unwrap_or_else(|| format!("Path({kind},{subtype},{})", hex::encode(data.get(..32).unwrap_or(data))))
}

fn first_guid(data: &[u8]) -> Option<String> {
    Some(guid::text(*data.first_chunk::<16>()?))
}

fn pair(data: &[u8]) -> Option<(u8, u8)> {
    let [a, b, ..] = data else { return None };
    Some((*a, *b))
}

/// Function, then device.
fn pci(data: &[u8]) -> Option<String> {
    pair(data).map(|(function, device)| format!("Pci({device:#x},{function:#x})"))
}

fn acpi(data: &[u8]) -> Option<String> {
    let mut reader = Reader::new(data);
    let (hid, uid) = (reader.le32("a HID").ok()?, reader.le32("a UID").ok()?);
    // PNP0A03 and PNP0A08 (PCI and PCI Express root bridges) in compressed EISA form.
    Some(match hid {
        0x0a03_41d0 => format!("PciRoot({uid:#x})"),
        0x0a08_41d0 => format!("PcieRoot({uid:#x})"),
        _ => format!("Acpi({hid:#x},{uid:#x})"),
    })
}

fn scsi(data: &[u8]) -> Option<String> {
    let mut reader = Reader::new(data);
    let mut next = || reader.le16("a SCSI number").ok();
    Some(format!("Scsi({:#x},{:#x})", next()?, next()?))
}

fn sata(data: &[u8]) -> Option<String> {
    let mut reader = Reader::new(data);
    let mut next = || reader.le16("a SATA number").ok();
    Some(format!("Sata({:#x},{:#x},{:#x})", next()?, next()?, next()?))
}

fn nvme(data: &[u8]) -> Option<String> {
    let mut reader = Reader::new(data);
    let (namespace, eui) = (reader.le32("a namespace").ok()?, reader.take(8, "an EUI-64").ok()?);
    Some(format!("NVMe({namespace:#x},{})", hex::encode(eui)))
}

/// A partition of a hard drive, by GUID or by MBR signature.
fn partition(data: &[u8]) -> Option<String> {
    let mut reader = Reader::new(data);
    let number = reader.le32("a partition number").ok()?;
    reader.take(16, "start and size").ok()?;
    let signature: [u8; 16] = reader.array("a signature").ok()?;
    let _format = reader.u8("a partition format").ok()?;
    Some(match reader.u8("a signature type").ok()? {
        2 => format!("HD({number},GPT,{})", guid::text(signature)),
        1 => format!("HD({number},MBR,{})", hex::encode(signature.first_chunk::<4>()?)),
        _ => format!("HD({number})"),
    })
}

/// Where an option ROM's image lies in the ROM.
fn offset_range(data: &[u8]) -> Option<String> {
    let mut reader = Reader::new(data);
    reader.le32("reserved").ok()?;
    let (start, end) = (reader.le64("a start").ok()?, reader.le64("an end").ok()?);
    Some(format!("Offset({start:#x},{end:#x})"))
}

/// UTF-16LE up to its NUL; what is no text becomes U+FFFD.
pub(super) fn utf16(data: &[u8]) -> String {
    let units = data.as_chunks::<2>().0.iter().map(|unit| u16::from_le_bytes(*unit)).take_while(|unit| *unit != 0);
    char::decode_utf16(units).take(TEXT_MAX).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

#[cfg(test)]
mod tests {
    use super::text;

    fn node(kind: u8, subtype: u8, data: &[u8]) -> Vec<u8> {
        let length = u16::try_from(data.len().saturating_add(4)).unwrap();
        [&[kind, subtype], length.to_le_bytes().as_slice(), data].concat()
    }

    #[test]
    fn a_path_is_written_as_the_specification_has_it() {
        let file: Vec<u8> = "\\EFI\\a.efi\0".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let root = node(2, 1, &[0xd0, 0x41, 0x03, 0x0a, 0, 0, 0, 0]);
        let mut partition = vec![1, 0, 0, 0];
        partition.extend([0; 16]);
        partition
            .extend([0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0, 0xe0, 0x98, 3, 0x2b, 0x8c, 2, 2]);
        let path = [
            root,
            node(1, 1, &[2, 0x1f]),
            node(3, 0x12, &[0, 0, 0xff, 0xff, 0, 0]),
            node(4, 1, &partition),
            node(4, 4, &file),
        ];
        let expect = "PciRoot(0x0)/Pci(0x1f,0x2)/Sata(0x0,0xffff,0x0)/HD(1,GPT,8be4df61-93ca-11d2-aa0d-00e098032b8c)/\\EFI\\a.efi";
        assert_eq!(text(&[path.concat(), node(0x7f, 0xff, &[]), node(4, 4, b"x")].concat()), expect);
        assert_eq!(text(&node(9, 9, &[1, 2])), "Path(9,9,0102)");
        // A length below a node's own header ends the path.
        assert_eq!(text(&[4, 4, 3, 0, 1, 1, 1, 1]), "");
        assert_eq!(text(&node(1, 1, &[2]).repeat(40)).matches("Path(1,1,02)").count(), 32);
    }
}
