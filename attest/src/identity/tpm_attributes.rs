//! Which chip an EK certificate speaks of: the TPM's manufacturer, model and version.
//!
//! TCG EK Credential Profile 2.5, 3.1.1 and 3.2.9 (subjectAltName with tcg-at-tpmManufacturer, -Model, -Version), 3.2.10
//! (tPMSpecification); TCG TPM Vendor ID Registry 1.07. Values are the maker's words, as good as its signature: before the chain is
//! verified they are anybody's. They never decide a class (`class`).

use std::fmt;

use serde::Serialize;

use super::der::{Element, INTEGER, OID, SEQUENCE, SET, oid};
use crate::bytes::{ParseError, Problem, Reader};
use crate::finding::one_line;

/// tcg-at-tpmManufacturer.
const MANUFACTURER: &str = "2.23.133.2.1";
/// tcg-at-tpmModel.
const MODEL: &str = "2.23.133.2.2";
/// tcg-at-tpmVersion.
const VERSION: &str = "2.23.133.2.3";
/// tcg-at-tpmSpecification.
const SPECIFICATION: &str = "2.23.133.2.16";
/// Tag of a GeneralName's directoryName, `[4] EXPLICIT Name`.
const DIRECTORY_NAME: u8 = 0xa4;

/// TPM_PT_MANUFACTURER and who it is, from the registry.
const VENDORS: [(&[u8; 4], &str); 29] = [
    (b"AMD\0", "AMD"),
    (b"ANT\0", "Ant Group"),
    (b"ATML", "Atmel"),
    (b"BRCM", "Broadcom"),
    (b"CSCO", "Cisco"),
    (b"FLYS", "Flyslice Technologies"),
    (b"GOOG", "Google"),
    (b"HPE\0", "HPE"),
    (b"HPI\0", "HPI"),
    (b"HISI", "Huawei"),
    (b"IBM\0", "IBM"),
    (b"IFX\0", "Infineon"),
    (b"INTC", "Intel"),
    (b"LEN\0", "Lenovo"),
    (b"MSFT", "Microsoft"),
    (b"NSM ", "National Semiconductor"),
    (b"NSG\0", "NSING"),
    (b"NTC\0", "Nuvoton"),
    (b"NTZ\0", "Nationz"),
    (b"QCOM", "Qualcomm"),
    (b"ROCC", "Fuzhou Rockchip"),
    (b"SEAL", "Wisekey"),
    (b"SECE", "SecEdge"),
    (b"SMSC", "SMSC"),
    (b"SMSN", "Samsung"),
    (b"SNS\0", "Sinosun"),
    (b"STM ", "STMicroelectronics"),
    (b"TXN\0", "Texas Instruments"),
    (b"WEC\0", "Winbond"),
];

/// The four bytes of TPM_PT_MANUFACTURER.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Manufacturer(pub [u8; 4]);

impl Manufacturer {
    /// The registered vendor. None for an id that the registry does not hold.
    #[must_use]
    pub fn vendor(self) -> Option<&'static str> {
        VENDORS.iter().find(|(id, _)| **id == self.0).map(|(_, name)| *name)
    }

    /// Reads the certificate's form, `id:` and eight hex digits.
    fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 4];
        hex::decode_to_slice(text.strip_prefix("id:")?, &mut bytes).ok()?;
        Some(Self(bytes))
    }
}

/// `INTC (Intel)`, or `id:00001014` for what is no registered word.
impl fmt::Display for Manufacturer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.vendor() {
            Some(vendor) => {
                let word: String = self.0.iter().filter(|b| b.is_ascii_graphic()).map(|b| char::from(*b)).collect();
                write!(out, "{word} ({vendor})")
            }
            None => write!(out, "id:{}", hex::encode_upper(self.0)),
        }
    }
}

impl Serialize for Manufacturer {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// The firmware's version as the maker counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TpmVersion {
    /// The higher half.
    pub major: u16,
    /// The lower half.
    pub minor: u16,
}

impl TpmVersion {
    /// Reads `id:` and up to eight hex digits. Four digits are the profile's older form, a byte for each half.
    fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("id:")?;
        let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u32::from_str_radix(digits, 16).ok().filter(|_| plain && digits.len() <= 8)?;
        let halves = if digits.len() <= 4 { (number >> 8, number & 0xff) } else { (number >> 16, number & 0xffff) };
        Some(Self { major: u16::try_from(halves.0).ok()?, minor: u16::try_from(halves.1).ok()? })
    }
}

impl fmt::Display for TpmVersion {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}", self.major, self.minor)
    }
}

impl Serialize for TpmVersion {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// What the alternative name says of the TPM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TpmAttributes {
    /// Who made it.
    pub manufacturer: Manufacturer,
    /// The maker's name of the model, on one line.
    pub model: String,
    /// Its firmware's version when the certificate was issued.
    pub version: TpmVersion,
}

impl TpmAttributes {
    /// Reads a subjectAltName's value. None when no directoryName holds any of the three attributes.
    ///
    /// # Errors
    /// A broken name; an attribute twice, of another form, or one without the others.
    pub fn from_alternative_name(value: &[u8]) -> Result<Option<Self>, ParseError> {
        let (mut manufacturer, mut model, mut version) = (None, None, None);
        for attribute in name_attributes(value)? {
            let twice = match attribute.oid.as_str() {
                MANUFACTURER => manufacturer.replace(Manufacturer::parse(&attribute.text)).is_some(),
                MODEL => model.replace(attribute.text).is_some(),
                VERSION => version.replace(TpmVersion::parse(&attribute.text)).is_some(),
                _ => false,
            };
            if twice {
                return Err(malformed("a TPM attribute stands twice in the alternative name"));
            }
        }
        match (manufacturer, model, version) {
            (None, None, None) => Ok(None),
            (Some(Some(manufacturer)), Some(model), Some(Some(version))) => {
                Ok(Some(Self { manufacturer, model: one_line(&model), version }))
            }
            (Some(None), ..) => Err(malformed("the TPM's manufacturer is not `id:` and 8 hex digits")),
            (_, _, Some(None)) => Err(malformed("the TPM's version is not `id:` and up to 8 hex digits")),
            _ => Err(malformed("manufacturer, model and version of the TPM do not stand together")),
        }
    }
}

/// `Infineon … SLB 9665 5.40` on one line.
impl fmt::Display for TpmAttributes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {} {}", self.manufacturer, self.model, self.version)
    }
}

/// One attribute of a directoryName.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attribute {
    pub(crate) oid: String,
    pub(crate) text: String,
}

/// The text attributes of every directoryName in a GeneralNames. Makers put several into one relative name (Nuvoton) or each into its own.
pub(crate) fn name_attributes(value: &[u8]) -> Result<Vec<Attribute>, ParseError> {
    let mut reader = Reader::new(value);
    let names = Element::expect(&mut reader, SEQUENCE, "the alternative name")?;
    let mut found = Vec::new();
    for name in Element::all(names, "a general name")? {
        if name.tag == DIRECTORY_NAME {
            found.append(&mut directory_attributes(name.contents)?);
        }
    }
    Ok(found)
}

/// The text attributes of one Name.
pub(crate) fn directory_attributes(mut name: Reader<'_>) -> Result<Vec<Attribute>, ParseError> {
    let mut found = Vec::new();
    for relative in Element::all(Element::expect(&mut name, SEQUENCE, "the directory name")?, "a relative name")? {
        if relative.tag != SET {
            return Err(relative.contents.error(Problem::Malformed { what: "a relative name is no SET" }));
        }
        for attribute in Element::all(relative.contents, "an attribute")? {
            let mut fields = attribute.contents;
            let kind = oid(Element::expect(&mut fields, OID, "an attribute's type")?.rest());
            let value = Element::next(&mut fields, "an attribute's value")?;
            let text = value.text().ok_or_else(|| value.contents.error(Problem::Malformed { what: "not a text" }))?;
            found.push(Attribute { oid: kind, text });
        }
    }
    Ok(found)
}

/// Which TPM specification the chip follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TpmSpecification {
    /// `2.0`.
    pub family: String,
    /// Level.
    pub level: u32,
    /// Revision, 138 for 1.38.
    pub revision: u32,
}

impl TpmSpecification {
    /// Reads a subjectDirectoryAttributes' value. None when it does not say.
    ///
    /// # Errors
    /// A broken structure.
    pub fn from_directory_attributes(value: &[u8]) -> Result<Option<Self>, ParseError> {
        let mut reader = Reader::new(value);
        for attribute in Element::all(Element::expect(&mut reader, SEQUENCE, "the attributes")?, "an attribute")? {
            let mut fields = attribute.contents;
            let kind = oid(Element::expect(&mut fields, OID, "an attribute's type")?.rest());
            if kind != SPECIFICATION {
                continue;
            }
            let mut values = Element::expect(&mut fields, SET, "an attribute's values")?;
            let mut parts = Element::expect(&mut values, SEQUENCE, "the TPM's specification")?;
            let family = Element::next(&mut parts, "the family")?;
            let family = family.text().ok_or_else(|| malformed("the TPM specification's family is not a text"))?;
            let level = number(&Element::expect(&mut parts, INTEGER, "the level")?)?;
            let revision = number(&Element::expect(&mut parts, INTEGER, "the revision")?)?;
            return Ok(Some(Self { family: one_line(&family), level, revision }));
        }
        Ok(None)
    }
}

impl fmt::Display for TpmSpecification {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} level {} revision {}", self.family, self.level, self.revision)
    }
}

/// A small unsigned INTEGER.
pub(crate) fn number(contents: &Reader<'_>) -> Result<u32, ParseError> {
    let bytes = crate::tpm::key::without_leading_zeros(contents.rest());
    if bytes.len() > 4 || contents.rest().first().is_none_or(|first| *first >= 0x80) {
        return Err(contents.error(Problem::Malformed { what: "the number is not one of 32 bits" }));
    }
    Ok(bytes.iter().fold(0, |sum, byte| (sum << 8) | u32::from(*byte)))
}

const fn malformed(what: &'static str) -> ParseError {
    ParseError { at: 0, problem: Problem::Malformed { what } }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An element, in short form.
    fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let contents = parts.concat();
        [&[tag, u8::try_from(contents.len()).unwrap()], contents.as_slice()].concat()
    }

    fn attribute(arc: u8, text: &str) -> Vec<u8> {
        der(SEQUENCE, &[&der(OID, &[&[0x67, 0x81, 0x05, 2, arc]]), &der(0x0c, &[text.as_bytes()])])
    }

    fn alternative_name(relatives: &[Vec<Vec<u8>>]) -> Vec<u8> {
        let sets: Vec<Vec<u8>> = relatives.iter().map(|one| der(SET, &[&one.concat()])).collect();
        der(SEQUENCE, &[&der(DIRECTORY_NAME, &[&der(SEQUENCE, &[&sets.concat()])])])
    }

    #[test]
    fn the_three_attributes_are_read_together_or_not_at_all() {
        let (maker, model, version) =
            (attribute(1, "id:4E544300"), attribute(2, "NPCT75x"), attribute(3, "id:00070002"));
        let read = |relatives: &[Vec<Vec<u8>>]| TpmAttributes::from_alternative_name(&alternative_name(relatives));
        let apart = read(&[vec![maker.clone()], vec![model.clone()], vec![version.clone()]]).unwrap().unwrap();
        assert_eq!(apart.to_string(), "NTC (Nuvoton) NPCT75x 7.2");
        let together = read(&[vec![maker.clone(), model.clone(), version.clone()]]).unwrap().unwrap();
        assert_eq!(together, apart);
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[vec![attribute(9, "x")]]), Ok(None));
        let rows = [
            vec![vec![maker.clone()]],
            vec![vec![maker.clone(), maker.clone(), model.clone(), version.clone()]],
            vec![vec![attribute(1, "4E544300"), model.clone(), version.clone()]],
            vec![vec![attribute(1, "id:4E54"), model.clone(), version.clone()]],
            vec![vec![maker.clone(), model.clone(), attribute(3, "id:+7")]],
            vec![vec![maker, model, attribute(3, "id:000700021")]],
        ];
        for row in rows {
            assert!(read(&row).is_err(), "{row:x?}");
        }
    }

    #[test]
    fn manufacturers_and_versions_have_their_names() {
        let rows = [
            ("id:49465800", "IFX (Infineon)"),
            ("id:53544D20", "STM (STMicroelectronics)"),
            ("id:494E5443", "INTC (Intel)"),
            ("id:414D4400", "AMD (AMD)"),
            ("id:00001014", "id:00001014"),
        ];
        for (text, shown) in rows {
            assert_eq!(Manufacturer::parse(text).unwrap().to_string(), shown);
        }
        for (text, shown) in [("id:0528", "5.40"), ("id:00490004", "73.4"), ("id:20160511", "8214.1297")] {
            assert_eq!(TpmVersion::parse(text).unwrap().to_string(), shown);
        }
    }
}
