//! Enums whose variant is named by a field of theirs, read as they come.
//!
//! Of an enum with `#[serde(tag = "…")]` serde holds the whole value before it knows the variant, and of
//! one within another it does so again. The journal has its tags first, where they were written: so the
//! variant is known before its fields are read. A value whose tag comes later is held, and read all the same.

use std::{fmt, iter, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{
        DeserializeSeed, EnumAccess, Error, IgnoredAny, MapAccess, VariantAccess, Visitor,
        value::{EnumAccessDeserializer, MapAccessDeserializer, MapDeserializer},
    },
};
use serde_json::{Map, Value};

/// Declares an enum that is written with its variant's name in the field of that name, first, and read
/// back by [`of`]. The second name is that of its twin, which serde reads as an enum of variants that are
/// named from outside.
macro_rules! tagged {
    (
        $tag:tt, $twin:ident;
        $(#[$meta:meta])*
        pub enum $name:ident {
            $(
                $(#[$of_variant:meta])*
                $variant:ident $({
                    $($(#[$of_field:meta])* $field:ident: $type:ty,)*
                })?,
            )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
        #[serde(rename_all = "kebab-case", tag = $tag)]
        pub enum $name {
            $($(#[$of_variant])* $variant $({ $($(#[$of_field])* $field: $type,)* })?,)*
        }

        #[derive(serde::Deserialize)]
        #[serde(rename_all = "kebab-case")]
        enum $twin {
            $($(#[$of_variant])* $variant $({ $($(#[$of_field])* $field: $type,)* })?,)*
        }

        impl From<$twin> for $name {
            fn from(twin: $twin) -> Self {
                match twin {
                    $($twin::$variant $({ $($field,)* })? => Self::$variant $({ $($field,)* })?,)*
                }
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::tagged::of::<$twin, D>($tag, deserializer).map(Self::from)
            }
        }
    };
}
pub(crate) use tagged;

/// Reads a map as the enum whose variant the field `tag` names.
pub(crate) fn of<'de, T, D: Deserializer<'de>>(
    tag: &'static str,
    deserializer: D,
) -> Result<T, D::Error>
where
    T: for<'any> Deserialize<'any>,
{
    deserializer.deserialize_map(ByTag {
        tag,
        of: PhantomData,
    })
}

/// Reads the rest of a map whose tag is what comes next.
pub(crate) fn rest<'de, T: Deserialize<'de>, M: MapAccess<'de>>(map: M) -> Result<T, M::Error> {
    T::deserialize(EnumAccessDeserializer::new(Rest(map)))
}

/// Reads a map that was held because its tag didn't come first.
pub(crate) fn held<T, E>(tag: &'static str, mut fields: Map<String, Value>) -> Result<T, E>
where
    T: for<'any> Deserialize<'any>,
    E: Error,
{
    let variant = fields.remove(tag).ok_or_else(|| E::missing_field(tag))?;
    let first = iter::once((tag.to_owned(), variant));
    let mut map = MapDeserializer::<_, serde_json::Error>::new(first.chain(fields));
    map.next_key::<IgnoredAny>()
        .and_then(|_| rest(map))
        .map_err(E::custom)
}

struct ByTag<T> {
    tag: &'static str,
    of: PhantomData<T>,
}

impl<'de, T> Visitor<'de> for ByTag<T>
where
    T: for<'any> Deserialize<'any>,
{
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a map with the field `{}`", self.tag)
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<T, M::Error> {
        let Some(key) = map.next_key_seed(Unless(self.tag))? else {
            return Err(M::Error::missing_field(self.tag));
        };
        let Some(other) = key else {
            return rest(map);
        };
        let mut fields = Map::new();
        fields.insert(other, map.next_value()?);
        while let Some((key, value)) = map.next_entry()? {
            fields.insert(key, value);
        }
        held(self.tag, fields)
    }
}

/// A key that is kept only where it is another than this one.
struct Unless(&'static str);

impl<'de> DeserializeSeed<'de> for Unless {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Unless {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok((key != self.0).then(|| key.to_owned()))
    }
}

/// The map behind a tag's name, as the enum that it is.
struct Rest<M>(M);

impl<'de, M: MapAccess<'de>> EnumAccess<'de> for Rest<M> {
    type Error = M::Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(
        mut self,
        seed: V,
    ) -> Result<(V::Value, Self), M::Error> {
        let variant = self.0.next_value_seed(seed)?;
        Ok((variant, self))
    }
}

impl<'de, M: MapAccess<'de>> VariantAccess<'de> for Rest<M> {
    type Error = M::Error;

    fn unit_variant(mut self) -> Result<(), M::Error> {
        while self.0.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, M::Error> {
        seed.deserialize(MapAccessDeserializer::new(self.0))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, M::Error> {
        visitor.visit_map(self.0)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, M::Error> {
        visitor.visit_map(self.0)
    }
}
