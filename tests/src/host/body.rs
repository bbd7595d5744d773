//! Bytes that are mostly text, so that a failed assertion can be read.

use std::fmt;
use std::ops::{Deref, DerefMut};

/// A body, or a part of one.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Body(Vec<u8>);

impl Deref for Body {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for Body {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl<B: Into<Vec<u8>>> From<B> for Body {
    fn from(bytes: B) -> Self {
        Self(bytes.into())
    }
}

impl PartialEq<&str> for Body {
    fn eq(&self, text: &&str) -> bool {
        self.0 == text.as_bytes()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}
