//! JSON in which no name stands twice. serde_json itself keeps the last of two, which would drop a limit silently.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::read::{field_path, item_path};

/// Why bytes hold no document, or one that says a name twice.
pub(super) struct NoJson {
    /// Where the name stands; empty for anything else.
    pub(super) path: String,
    /// What is wrong, and on which line.
    pub(super) error: serde_json::Error,
}

/// Reads a document without doubled names. Its depth is bounded by serde_json's, which is 128.
pub(super) fn read(bytes: &[u8]) -> Result<Value, NoJson> {
    let twice = Cell::default();
    let mut parser = serde_json::Deserializer::from_slice(bytes);
    let seed = Values { place: Place::Document, twice: &twice };
    let read = seed.deserialize(&mut parser).and_then(|value| parser.end().map(|()| value));
    read.map_err(|error| NoJson { path: twice.take(), error })
}

/// Where a value stands. A path is written only for the one that is wrong.
enum Place<'p> {
    Document,
    Field(&'p Place<'p>, &'p str),
    Item(&'p Place<'p>, usize),
}

impl Place<'_> {
    fn path(&self) -> String {
        match self {
            Place::Document => String::new(),
            Place::Field(owner, name) => field_path(&owner.path(), name),
            Place::Item(owner, index) => item_path(&owner.path(), *index),
        }
    }
}

/// Reads the value at `place`.
struct Values<'p> {
    place: Place<'p>,
    /// The path of the name that stands twice.
    twice: &'p Cell<String>,
}

impl<'de> DeserializeSeed<'de> for Values<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Values<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let place = Place::Item(&self.place, list.len());
            match items.next_element_seed(Values { place, twice: self.twice })? {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            let place = Place::Field(&self.place, &name);
            if map.contains_key(&name) {
                self.twice.set(place.path());
                return Err(A::Error::custom(format_args!("the name {name:?} stands twice in an object")));
            }
            let value = entries.next_value_seed(Values { place, twice: self.twice })?;
            map.insert(name, value);
        }
        Ok(Value::Object(map))
    }
}
