//! A bounded cursor over untrusted bytes.
//!
//! Every parser in this crate reads through [`Reader`], so an error always names the byte where the input went wrong,
//! counted from the start of the outermost input. It establishes framing only, never meaning.

/// Why a byte string could not be read, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at byte {at}: {problem}")]
pub struct ParseError {
    /// Offset from the start of the outermost input.
    pub at: usize,
    /// What is wrong there.
    pub problem: Problem,
}

/// What can be wrong with untrusted bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The input ends before the field does.
    #[error("{what} needs {need} bytes, {left} left")]
    Truncated {
        /// The field being read.
        what: &'static str,
        /// Bytes that the field needs.
        need: usize,
        /// Bytes that are left.
        left: usize,
    },
    /// A size or a count above its limit.
    #[error("{what} is {found}, the limit is {limit}")]
    OverLimit {
        /// The field.
        what: &'static str,
        /// Its value.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// A value the specification does not know here.
    #[error("{what} has the unknown value {found:#x}")]
    Unknown {
        /// The field.
        what: &'static str,
        /// Its value.
        found: u64,
    },
    /// A value that is known but not allowed here.
    #[error("{what} is {found:#x}, expected {expected:#x}")]
    Mismatch {
        /// The field.
        what: &'static str,
        /// The value that was expected.
        expected: u64,
        /// The value that was found.
        found: u64,
    },
    /// A field that is malformed in a way no number describes.
    #[error("{what}")]
    Malformed {
        /// What is malformed and how.
        what: &'static str,
    },
    /// Bytes after the end of a structure that must fill its input.
    #[error("{left} bytes follow the end of {what}")]
    Trailing {
        /// The structure.
        what: &'static str,
        /// Bytes that follow it.
        left: usize,
    },
}

/// A cursor over untrusted bytes. Reads move it forward; a failed read leaves it where it was.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    input: &'a [u8],
    /// Offset of `input[0]` in the outermost input.
    base: usize,
    at: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte of an outermost input.
    #[must_use]
    #[inline]
    pub const fn new(input: &'a [u8]) -> Self {
        Self { input, base: 0, at: 0 }
    }

    /// Starts at the first byte of `input`, which itself began at byte `base` of the outermost input.
    #[must_use]
    pub const fn nested(input: &'a [u8], base: usize) -> Self {
        Self { input, base, at: 0 }
    }

    /// Offset of the next byte, counted from the start of the outermost input.
    #[must_use]
    #[inline]
    pub const fn position(&self) -> usize {
        self.base.saturating_add(self.at)
    }

    /// Bytes that are left.
    #[must_use]
    #[inline]
    pub const fn left(&self) -> usize {
        self.input.len().saturating_sub(self.at)
    }

    /// True when nothing is left.
    #[must_use]
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.left() == 0
    }

    /// All that is left, without moving.
    #[must_use]
    #[inline]
    pub fn rest(&self) -> &'a [u8] {
        self.input.get(self.at..).unwrap_or_default()
    }

    /// An error at the next byte.
    #[must_use]
    pub const fn error(&self, problem: Problem) -> ParseError {
        ParseError { at: self.position(), problem }
    }

    /// Takes `count` bytes.
    ///
    /// # Errors
    /// [`Problem::Truncated`] when fewer are left.
    #[inline]
    pub fn take(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], ParseError> {
        match self.rest().get(..count) {
            Some(taken) => {
                self.at = self.at.saturating_add(count);
                Ok(taken)
            }
            None => Err(self.error(Problem::Truncated { what, need: count, left: self.left() })),
        }
    }

    /// Takes `count` bytes as a reader of their own, whose errors still count from the outermost input.
    ///
    /// # Errors
    /// [`Problem::Truncated`] when fewer are left.
    pub fn sub(&mut self, count: usize, what: &'static str) -> Result<Self, ParseError> {
        let base = self.position();
        Ok(Self::nested(self.take(count, what)?, base))
    }

    /// Takes exactly `N` bytes.
    ///
    /// # Errors
    /// [`Problem::Truncated`] when fewer are left.
    #[inline]
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], ParseError> {
        let mut out = [0u8; N];
        out.copy_from_slice(self.take(N, what)?);
        Ok(out)
    }

    /// Takes one byte.
    ///
    /// # Errors
    /// [`Problem::Truncated`].
    pub fn u8(&mut self, what: &'static str) -> Result<u8, ParseError> {
        Ok(u8::from_be_bytes(self.array(what)?))
    }

    /// Takes a big-endian 16-bit number (the TPM's byte order).
    ///
    /// # Errors
    /// [`Problem::Truncated`].
    pub fn be16(&mut self, what: &'static str) -> Result<u16, ParseError> {
        Ok(u16::from_be_bytes(self.array(what)?))
    }

    /// Takes a big-endian 32-bit number.
    ///
    /// # Errors
    /// [`Problem::Truncated`].
    pub fn be32(&mut self, what: &'static str) -> Result<u32, ParseError> {
        Ok(u32::from_be_bytes(self.array(what)?))
    }

    /// Takes a big-endian 64-bit number.
    ///
    /// # Errors
    /// [`Problem::Truncated`].
    pub fn be64(&mut self, what: &'static str) -> Result<u64, ParseError> {
        Ok(u64::from_be_bytes(self.array(what)?))
    }

    /// Takes a little-endian 16-bit number (the event log's byte order).
    ///
    /// # Errors
    /// [`Problem::Truncated`].
    #[inline]
    pub fn le16(&mut self, what: &'static str) -> Result<u16, ParseError> {
        Ok(u16::from_le_bytes(self.array(what)?))
    }

    /// Takes a little-endian 32-bit number.
    ///
    /// # Errors
    /// [`Problem::Truncated`].
    #[inline]
    pub fn le32(&mut self, what: &'static str) -> Result<u32, ParseError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    /// Takes a little-endian 64-bit number.
    ///
    /// # Errors
    /// [`Problem::Truncated`].
    pub fn le64(&mut self, what: &'static str) -> Result<u64, ParseError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// Takes a TPM2B: a big-endian 16-bit size, at most `limit`, and that many bytes.
    ///
    /// # Errors
    /// [`Problem::Truncated`], [`Problem::OverLimit`].
    pub fn tpm2b(&mut self, limit: u16, what: &'static str) -> Result<&'a [u8], ParseError> {
        let start = self.clone();
        let size = self.be16(what)?;
        if size > limit {
            let error = start.error(Problem::OverLimit { what, found: u64::from(size), limit: u64::from(limit) });
            *self = start;
            return Err(error);
        }
        self.take(usize::from(size), what).inspect_err(|_| *self = start)
    }

    /// Ends the reading of a structure that must fill its input.
    ///
    /// # Errors
    /// [`Problem::Trailing`] when bytes are left.
    pub fn finish(&self, what: &'static str) -> Result<(), ParseError> {
        match self.left() {
            0 => Ok(()),
            left => Err(self.error(Problem::Trailing { what, left })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_byte_of_the_outermost_input() {
        let input = [0u8, 1, 2, 3, 4];
        let mut outer = Reader::new(&input);
        outer.take(2, "head").unwrap();
        let mut inner = outer.sub(3, "body").unwrap();
        inner.u8("a").unwrap();
        let error = inner.be32("b").unwrap_err();
        assert_eq!(error, ParseError { at: 3, problem: Problem::Truncated { what: "b", need: 4, left: 2 } });
        assert_eq!(inner.left(), 2, "a failed read does not move");
    }

    #[test]
    fn a_tpm2b_is_bounded() {
        let mut reader = Reader::new(&[0, 3, 1, 2, 3, 9]);
        assert_eq!(reader.tpm2b(3, "x").unwrap(), [1, 2, 3]);
        let mut reader = Reader::new(&[0, 4, 1, 2, 3, 4]);
        assert_eq!(reader.tpm2b(3, "x").unwrap_err().problem, Problem::OverLimit { what: "x", found: 4, limit: 3 });
        assert_eq!(reader.position(), 0);
    }
}
