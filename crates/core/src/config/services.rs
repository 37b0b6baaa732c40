//! The original's `services.xml`: which stores there are. It states no threshold and no trust.
//!
//! The first service of the wanted type is the primary; the stores are the primary and then its associated services of
//! the same type, in order. A name that the file does not define is an error here: the original skips it, which
//! silently lowers n. A DOCTYPE may stand there, entities may not, and nothing outside the file is ever read.

use roxmltree::{Document, Node, ParsingOptions};

use super::StoreEndpoint;
use super::endpoint::{self, EndpointError};

/// Types tried where the environment names none: the original's last sources say the first, everything before the
/// second.
pub const DEFAULT_TYPES: [&str; 2] = ["org.glite.KeyStore", "org.glite.Metadata"];

/// The longest file read, in bytes.
pub const MAX_BYTES: usize = 1 << 20;

/// Why a `services.xml` gives no stores.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServicesError {
    /// Over [`MAX_BYTES`].
    #[error("the file is over {MAX_BYTES} bytes")]
    TooLong,
    /// It declares entities.
    #[error("entities are not allowed")]
    Entity,
    /// Not well formed.
    #[error("no well-formed XML")]
    Xml(#[source] roxmltree::Error),
    /// The top element is something else.
    #[error("the top element is `{found}`, not `services`")]
    Root {
        /// What it is.
        found: String,
    },
    /// No service of the wanted type.
    #[error("no service of type {}", wanted.join(" or "))]
    NoService {
        /// What was looked for.
        wanted: Vec<String>,
    },
    /// An associated service that the file does not define.
    #[error("service `{name}`, associated with `{primary}`, is not defined")]
    Undefined {
        /// The name.
        name: String,
        /// Who names it.
        primary: String,
    },
    /// Two definitions of one name, or one name listed twice: which stores are meant would be a guess.
    #[error("service `{name}` appears twice")]
    Twice {
        /// The name.
        name: String,
    },
    /// A service without a name.
    #[error("a service in line {line} has no name")]
    Nameless {
        /// Where.
        line: u32,
    },
    /// A service without an endpoint.
    #[error("service `{name}` has no endpoint")]
    NoEndpoint {
        /// The name.
        name: String,
    },
    /// A service whose endpoint is no address.
    #[error("service `{name}` has no usable endpoint")]
    Endpoint {
        /// The name.
        name: String,
        /// Why not.
        #[source]
        source: EndpointError,
    },
}

struct Service<'a> {
    name: &'a str,
    kind: Option<&'a str>,
    endpoint: Option<&'a str>,
    associated: Vec<&'a str>,
}

/// The stores that a `services.xml` gives, primary first. `wanted` is the type that the environment asks for, if it
/// does.
///
/// # Errors
/// What is wrong with the file.
pub fn parse(text: &str, wanted: Option<&str>) -> Result<Vec<StoreEndpoint>, ServicesError> {
    if text.len() > MAX_BYTES {
        return Err(ServicesError::TooLong);
    }
    // The parser would expand internal entities. No such file needs them, and without declarations there are none.
    if text.contains("<!ENTITY") {
        return Err(ServicesError::Entity);
    }
    let options = ParsingOptions {
        allow_dtd: true,
        nodes_limit: 100_000,
        ..ParsingOptions::default()
    };
    let document = Document::parse_with_options(text, options).map_err(ServicesError::Xml)?;
    let root = document.root_element();
    if root.tag_name().name() != "services" {
        return Err(ServicesError::Root {
            found: root.tag_name().name().to_owned(),
        });
    }
    let services = read_services(root)?;
    let primary = choose_primary(&services, wanted)?;
    endpoints(&services, primary)
}

fn read_services<'a>(root: Node<'a, 'a>) -> Result<Vec<Service<'a>>, ServicesError> {
    let mut services: Vec<Service<'a>> = Vec::new();
    for node in children(root, "service") {
        let line = root.document().text_pos_at(node.range().start).row;
        let name = node.attribute("name").map(str::trim).filter(|name| !name.is_empty());
        let name = name.ok_or(ServicesError::Nameless { line })?;
        if services.iter().any(|other| other.name == name) {
            return Err(ServicesError::Twice { name: name.to_owned() });
        }
        let parameter = |tag| {
            children(node, "parameters")
                .flat_map(|p| children(p, tag))
                .find_map(content)
        };
        let associated = children(node, "associatedservices")
            .flat_map(|list| children(list, "name"))
            .filter_map(content);
        services.push(Service {
            name,
            kind: parameter("type"),
            endpoint: parameter("endpoint"),
            associated: associated.collect(),
        });
    }
    Ok(services)
}

fn choose_primary<'s, 'a>(services: &'s [Service<'a>], wanted: Option<&str>) -> Result<&'s Service<'a>, ServicesError> {
    let types: Vec<&str> = wanted.map_or_else(|| DEFAULT_TYPES.to_vec(), |one| vec![one]);
    let of_type = |kind: &&str| services.iter().find(|service| service.kind == Some(*kind));
    let none = || ServicesError::NoService {
        wanted: types.iter().map(ToString::to_string).collect(),
    };
    types.iter().find_map(of_type).ok_or_else(none)
}

fn endpoints(services: &[Service<'_>], primary: &Service<'_>) -> Result<Vec<StoreEndpoint>, ServicesError> {
    let mut stores = vec![endpoint_of(primary)?];
    for name in &primary.associated {
        let undefined = || ServicesError::Undefined {
            name: (*name).to_owned(),
            primary: primary.name.to_owned(),
        };
        let service = services
            .iter()
            .find(|service| service.name == *name)
            .ok_or_else(undefined)?;
        if service.kind != primary.kind {
            continue;
        }
        if stores.iter().any(|store| store.name == *name) {
            return Err(ServicesError::Twice {
                name: (*name).to_owned(),
            });
        }
        stores.push(endpoint_of(service)?);
    }
    Ok(stores)
}

fn endpoint_of(service: &Service<'_>) -> Result<StoreEndpoint, ServicesError> {
    let name = service.name.to_owned();
    let written = service
        .endpoint
        .ok_or_else(|| ServicesError::NoEndpoint { name: name.clone() })?;
    let url = endpoint::normalise(written).map_err(|source| ServicesError::Endpoint {
        name: name.clone(),
        source,
    })?;
    Ok(StoreEndpoint { url, name, id: None })
}

fn children<'a>(node: Node<'a, 'a>, tag: &'a str) -> impl Iterator<Item = Node<'a, 'a>> {
    node.children()
        .filter(move |child| child.is_element() && child.tag_name().name() == tag)
}

fn content<'a>(node: Node<'a, 'a>) -> Option<&'a str> {
    node.text().map(str::trim).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, kind: &str, port: u16, associated: &[&str]) -> String {
        let names: String = associated.iter().map(|name| format!("<name> {name} </name>")).collect();
        format!(
            "<service name=\"{name}\"><parameters>\
             <endpoint>https://{name}.example.net:{port}/1/glite-data-hydra-service/services/Hydra</endpoint>\
             <type>{kind}</type><version>1.0.0</version><wsdl>x</wsdl><volist><vo>myvo</vo></volist></parameters>\
             <associatedservices>{names}</associatedservices></service>"
        )
    }

    fn file(services: &[String]) -> String {
        format!(
            "<?xml version=\"1.0\"?>\n<!DOCTYPE services SYSTEM \"services.dtd\">\n<services>{}</services>",
            services.concat()
        )
    }

    fn names(text: &str, wanted: Option<&str>) -> Vec<String> {
        parse(text, wanted)
            .unwrap()
            .into_iter()
            .map(|store| store.name)
            .collect()
    }

    #[test]
    fn the_primary_comes_first_then_its_fellows_in_order() {
        let text = file(&[
            service("other", "org.example.Other", 1, &[]),
            service("ks-a", "org.glite.Metadata", 8443, &["ks-c", "ks-b", "other"]),
            service("ks-b", "org.glite.Metadata", 8443, &["ks-a", "ks-c"]),
            service("ks-c", "org.glite.Metadata", 8444, &["ks-a", "ks-b"]),
        ]);
        let stores = parse(&text, None).unwrap();
        let urls: Vec<_> = stores.iter().map(|store| store.url.as_str()).collect();
        assert_eq!(
            urls,
            [
                "https://ks-a.example.net:8443/1",
                "https://ks-c.example.net:8444/1",
                "https://ks-b.example.net:8443/1"
            ]
        );
        assert_eq!(names(&text, None), ["ks-a", "ks-c", "ks-b"]);
    }

    #[test]
    fn the_type_is_the_one_asked_for_else_key_store_else_metadata() {
        let text = file(&[
            service("old", "org.glite.Metadata", 1, &[]),
            service("new", "org.glite.KeyStore", 1, &[]),
            service("own", "org.example.Own", 1, &[]),
        ]);
        assert_eq!(names(&text, None), ["new"]);
        assert_eq!(names(&text, Some("org.glite.Metadata")), ["old"]);
        assert_eq!(names(&text, Some("org.example.Own")), ["own"]);
        let missing = parse(&text, Some("org.example.None")).unwrap_err();
        assert_eq!(missing.to_string(), "no service of type org.example.None");
    }

    #[test]
    fn each_way_to_be_wrong_has_its_error() {
        let metadata = "org.glite.Metadata";
        let undefined = file(&[service("a", metadata, 1, &["b"])]);
        assert!(matches!(parse(&undefined, None), Err(ServicesError::Undefined { name, .. }) if name == "b"));
        let twice = file(&[service("a", metadata, 1, &[]), service("a", metadata, 1, &[])]);
        assert!(matches!(parse(&twice, None), Err(ServicesError::Twice { .. })));
        let listed_twice = file(&[service("a", metadata, 1, &["b", "b"]), service("b", metadata, 1, &[])]);
        assert!(matches!(parse(&listed_twice, None), Err(ServicesError::Twice { .. })));
        let itself = file(&[service("a", metadata, 1, &["a"])]);
        assert!(matches!(parse(&itself, None), Err(ServicesError::Twice { .. })));
        let bare =
            "<services><service name='a'><parameters><type>org.glite.Metadata</type></parameters></service></services>";
        assert!(matches!(parse(bare, None), Err(ServicesError::NoEndpoint { .. })));
        assert!(matches!(
            parse(&bare.replace(" name='a'", ""), None),
            Err(ServicesError::Nameless { line: 1 })
        ));
        let plain = bare.replace("<type>", "<endpoint>http://h/</endpoint><type>");
        assert!(matches!(parse(&plain, None), Err(ServicesError::Endpoint { .. })));
        assert!(matches!(parse("<service/>", None), Err(ServicesError::Root { .. })));
        assert!(matches!(
            parse("<services/>", None),
            Err(ServicesError::NoService { .. })
        ));
        assert!(matches!(parse("<services>", None), Err(ServicesError::Xml(_))));
        assert!(matches!(parse("", None), Err(ServicesError::Xml(_))));
        assert!(matches!(
            parse(&" ".repeat(MAX_BYTES + 1), None),
            Err(ServicesError::TooLong)
        ));
    }

    #[test]
    fn entities_are_neither_expanded_nor_fetched() {
        let external = "<!DOCTYPE services [<!ENTITY x SYSTEM \"file:///etc/passwd\">]><services>&x;</services>";
        assert!(matches!(parse(external, None), Err(ServicesError::Entity)));
        let undeclared = "<!DOCTYPE services SYSTEM \"http://example.org/x.dtd\"><services>&x;</services>";
        assert!(matches!(parse(undeclared, None), Err(ServicesError::Xml(_))));
    }
}
