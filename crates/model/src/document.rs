//! What is printed as JSON and may be kept or read by another program: documents, each with its version.
//!
//! A document names its version in the field `version`, first. The version becomes another when a field is
//! taken away, is renamed, or means something else, and when an enumeration's word goes: whoever reads the
//! old form would be misled. A field or a word that is new leaves it as it is; readers leave aside fields
//! that they don't know. A reader takes its own version alone ([`read`]).

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned, de::Error as _,
};

use crate::advice::{Advice, ErrorKind};

/// Something that is printed as JSON.
pub trait Document: Serialize + DeserializeOwned + JsonSchema {
    /// The name by which `undercroft schema --of` prints its schema.
    const NAME: &'static str;
    /// The version of its form.
    const VERSION: u32;
}

/// The version of a document, as a field of it: written as the number, read where it is that number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Version<const N: u32>;

impl<const N: u32> Serialize for Version<N> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u32(N)
    }
}

impl<'de, const N: u32> Deserialize<'de> for Version<N> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match u32::deserialize(from)? {
            found if found == N => Ok(Self),
            found => Err(D::Error::custom(format_args!(
                "its version is {found}, and only version {N} is known here"
            ))),
        }
    }
}

impl<const N: u32> JsonSchema for Version<N> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Version{N}").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "const": N, "description": "The version of this form." })
    }
}

/// Why a text isn't a document that can be read.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// It names no version.
    #[error("this is no {document} that Undercroft printed: it names no version")]
    NoVersion {
        /// What was to be read.
        document: &'static str,
    },
    /// It is of another version.
    #[error("this {document} is of version {found}, and this program reads version {known}")]
    UnknownVersion {
        /// What was to be read.
        document: &'static str,
        /// Its version.
        found: u64,
        /// The version that can be read.
        known: u32,
    },
    /// It isn't JSON, or not of that form.
    #[error("this is no {document} that Undercroft printed: {source}")]
    Form {
        /// What was to be read.
        document: &'static str,
        /// What is wrong with it, and where.
        source: serde_json::Error,
    },
}

impl Advice for DocumentError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Input
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownVersion { .. } => Some(
                "It was printed by another version of Undercroft: read it with a program made for that one, or print it anew."
                    .to_owned(),
            ),
            Self::NoVersion { .. } | Self::Form { .. } => None,
        }
    }
}

/// Reads a document. Its version is looked at before anything else of it, wherever it stands.
///
/// # Errors
/// When it is of another version, or no such document.
pub fn read<T: Document>(json: &str) -> Result<T, DocumentError> {
    #[derive(Deserialize)]
    struct Head {
        version: Option<u64>,
    }
    let document = T::NAME;
    let form = |source| DocumentError::Form { document, source };
    let head: Head = serde_json::from_str(json).map_err(form)?;
    match head.version {
        None => Err(DocumentError::NoVersion { document }),
        Some(found) if found != u64::from(T::VERSION) => Err(DocumentError::UnknownVersion {
            document,
            found,
            known: T::VERSION,
        }),
        Some(_) => serde_json::from_str(json).map_err(form),
    }
}

/// The JSON Schema (draft 2020-12) of what is written, so that fields that are always written are
/// required.
pub fn schema<T: Document>() -> Schema {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    let title = format!("undercroft {}, version {}", T::NAME, T::VERSION);
    schema.insert("title".to_owned(), title.into());
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
    struct Cellar {
        version: Version<3>,
        bottles: u32,
    }

    impl Document for Cellar {
        const NAME: &'static str = "cellar";
        const VERSION: u32 = 3;
    }

    #[test]
    fn a_document_of_another_version_is_refused_before_its_form_is_looked_at() {
        let whole = Cellar {
            version: Version,
            bottles: 7,
        };
        let text = serde_json::to_string(&whole).unwrap();
        assert_eq!(text, r#"{"version":3,"bottles":7}"#);
        assert_eq!(read::<Cellar>(&text).unwrap(), whole);
        // A field that a later program has added.
        let more = r#"{"later":[],"bottles":7,"version":3}"#;
        assert_eq!(read::<Cellar>(more).unwrap(), whole);
        for (text, why) in [
            (
                r#"{"casks":1,"version":4}"#,
                "this cellar is of version 4, and this program reads version 3",
            ),
            (r#"{"bottles":7}"#, "it names no version"),
            (r#"{"version":3}"#, "missing field `bottles`"),
            ("[]", "this is no cellar"),
            ("", "this is no cellar"),
        ] {
            let error = read::<Cellar>(text).unwrap_err();
            assert!(error.to_string().contains(why), "{text}: {error}");
        }
        // Within a larger document, too.
        let error = serde_json::from_str::<Cellar>(r#"{"version":2,"bottles":1}"#).unwrap_err();
        assert!(error.to_string().contains("only version 3 is known here"));
    }

    #[test]
    fn a_schema_names_the_version() {
        let schema = schema::<Cellar>();
        let schema = schema.as_value();
        assert_eq!(schema["properties"]["version"]["const"], 3);
        assert_eq!(
            schema["$schema"],
            "https://json-schema.org/draft/2020-12/schema"
        );
        assert_eq!(
            schema["required"],
            serde_json::json!(["version", "bottles"])
        );
    }
}
