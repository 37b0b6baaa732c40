//! What is fuzzed: one function for each kind of bytes that comes from outside.
//!
//! `fuzz/` calls these with inputs that it invents, and an ordinary test with the ones it keeps in `fuzz/corpus`. They
//! return if all is well, and panic if what must always hold does not. This file is compiled into both.

use std::path::Path;

use dicom_deid::{Options, Profile, ProfileOption, Secret};
use hydra_core::ids::{ChangeId, StoreId};
use hydra_core::key_id::KeyId;
use hydra_core::keystore::wire::{self, Answers, Batch};
use hydra_core::permissions::text::{AclEdit, Listing, Mode, principal_to_remove, read_list};
use hydra_core::permissions::{AclEntry, PermissionRecord, Permissions};
use hydra_core::sealed::{Header, Input, RangeReader};
use hydra_core::secret::Key;
use hydra_core::shamir::{glite, share};
use rustls_pki_types::CertificateDer;
use storage_url::{Scheme, StorageUrl};

/// A target: its name, which is also that of its corpus folder, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("wire_request", wire_request),
    ("wire_answer", wire_answer),
    ("config_toml", config_toml),
    ("services_xml", services_xml),
    ("key_id", key_id),
    ("storage_url", storage_url),
    ("dicom_association", dicom_association),
    ("dicom_command", dicom_command),
    ("dicom_instance", dicom_instance),
    ("dicom_multipart", dicom_multipart),
    ("permissions", permissions),
    ("permission_texts", permission_texts),
    ("share_text", share_text),
    ("glite_join", glite_join),
    ("certificate_chain", certificate_chain),
    ("revocation_list", revocation_list),
    ("signing_policy", signing_policy),
    ("distinguished_name", distinguished_name),
    ("attribute_certificates", attribute_certificates),
    ("lsc_file", lsc_file),
    ("mysql_dump", mysql_dump),
    ("sealed_header", sealed_header),
    ("sealed_file", sealed_file),
    ("dicom_file", dicom_file),
    ("recall_line", recall_line),
    ("catalog_query", catalog_query),
    ("stow_body", stow_body),
    ("tape_body", tape_body),
    ("study_query", study_query),
];

/// The body of a request of any operation: what is read is written back as what reads the same.
pub fn wire_request(data: &[u8]) {
    fn one<T: serde::de::DeserializeOwned + serde::Serialize>(data: &[u8]) {
        if let Ok(batch) = wire::parse_request::<T>(data) {
            let written = serde_json::to_vec(&batch).expect("what was read can be written");
            let again: Batch<T> = wire::parse_request(&written).expect("what we write can be read");
            assert_eq!(serde_json::to_vec(&again).expect("written before"), written);
        }
    }
    one::<wire::Create>(data);
    one::<wire::Confirm>(data);
    one::<wire::OfRegistration>(data);
    one::<wire::Undo>(data);
    one::<wire::Put>(data);
    one::<wire::DropBelow>(data);
    one::<wire::OfKeyId>(data);
    one::<wire::Change>(data);
    one::<wire::List>(data);
}

/// A DICOM file: what is written reads, has nothing of its input, and is taken a second time; explained or not.
pub fn dicom_file(data: &[u8]) {
    let secret = Secret::new(&[7; 32]).expect("long enough");
    for options in [
        &[][..],
        &[
            ProfileOption::CleanStructuredContent,
            ProfileOption::CleanDescriptors,
            ProfileOption::RetainModifiedDates,
            ProfileOption::RetainSafePrivate,
        ],
    ] {
        let mut options = Options::new(options.iter().copied()).expect("they agree");
        options.flag_instead = true;
        options.limits.header_bytes = 1 << 20;
        let profile = Profile::new(options, &secret);
        let _ = dicom_deid::explain(&profile, data);
        let Ok((out, report)) = profile.deidentify_file_bytes(data) else {
            continue;
        };
        let found = dicom_deid::check(data, out.as_slice()).expect("what we write can be read");
        assert!(found.is_empty(), "{found:?}");
        let (_, again) = profile
            .deidentify_file_bytes(&out)
            .expect("what we write is taken again");
        assert_eq!(again.original.sop, report.new.sop);
    }
}

/// The body of an answer of any operation, as a client reads it.
pub fn wire_answer(data: &[u8]) {
    fn one<T: serde::de::DeserializeOwned + serde::Serialize>(data: &[u8]) {
        if let Ok(answers) = serde_json::from_slice::<Answers<T>>(data) {
            let written = serde_json::to_vec(&answers).expect("what was read can be written");
            serde_json::from_slice::<Answers<T>>(&written).expect("what we write can be read");
        }
    }
    one::<wire::Changed>(data);
    one::<wire::ReadAnswer>(data);
    one::<wire::DescribeAnswer>(data);
    one::<wire::PermissionsAnswer>(data);
    one::<wire::ListAnswer>(data);
    let _ = serde_json::from_slice::<wire::About>(data);
    let _ = serde_json::from_slice::<wire::WhoAmI>(data);
    let _ = serde_json::from_slice::<wire::Problem>(data);
}

/// A client's `config.toml`.
pub fn config_toml(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Err(faults) = hydra_core::config::file::parse(text, Path::new("/etc/eds"))
    {
        assert!(!faults.0.is_empty(), "a refusal says why");
    }
}

/// The original's `services.xml`.
pub fn services_xml(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        for wanted in [None, Some("org.glite.KeyStore")] {
            if let Ok(stores) = hydra_core::config::services::parse(text, wanted) {
                assert!(!stores.is_empty() && stores.iter().all(|store| store.url.starts_with("http")));
            }
        }
    }
}

/// A key id: its canonical form is one too, and canonical.
pub fn key_id(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(id) = KeyId::new(text) {
        assert_eq!(id.as_str(), text);
    }
    let canonical = hydra_core::key_id::canonical(text);
    assert_eq!(hydra_core::key_id::canonical(&canonical), canonical);
}

/// A storage URL: written out it is the same, and what is shown of it has no query but the name of a file.
pub fn storage_url(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(url) = StorageUrl::parse(text) else {
        return;
    };
    if url.scheme() != Scheme::File {
        let again = StorageUrl::parse(&url.expose()).expect("what was read can be read again");
        assert_eq!(again, url);
    }
    let name = url.name();
    assert!(name.starts_with('/') && name.len() > 1, "{name}");
    // what stands behind a question mark may be a token, but in a file's name, which has no query
    let shown = url.to_string();
    let may_show = url.scheme() == Scheme::File || shown.contains("?SFN=");
    assert!(!shown.contains('?') || may_show, "{shown}");
}

/// Permissions as eight letters, and as people type them.
pub fn permissions(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(permissions) = text.parse::<Permissions>()
    {
        assert_eq!(permissions.to_string().parse::<Permissions>().ok(), Some(permissions));
    }
}

/// Modes, lines of an ACL and lists of them: what is set is listed, and the listing sets the same.
pub fn permission_texts(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut record = PermissionRecord::new("/CN=owner", None, ChangeId([0; 16]));
    if let Ok(mode) = text.parse::<Mode>() {
        record = mode.applied_to(&record);
        assert_eq!(mode.applied_to(&record).acl, record.acl, "a mode leaves the ACL");
    }
    let _ = principal_to_remove(text);
    if let Ok(entry) = text.parse::<AclEntry>() {
        assert_eq!(entry.to_string().parse::<AclEntry>().as_ref(), Ok(&entry));
    }
    if let Ok(lines) = read_list(text, str::parse::<AclEntry>) {
        let record = AclEdit::exact(lines).applied_to(&record);
        let listed = Listing(&record).to_string();
        let again = read_list(&listed, str::parse::<AclEntry>).expect("a listing is a list");
        assert_eq!(AclEdit::exact(again).applied_to(&record), record);
    }
}

/// Shares as text, as people send them: what joins, joins to the same when upper-cased or broken into lines.
pub fn share_text(data: &[u8]) {
    if let Ok(secret) = share::join(data) {
        let upper = data.to_ascii_uppercase();
        let again = share::join(&upper).expect("the case of letters means nothing");
        assert!(secret.expose() == again.expose(), "upper-casing changed the secret");
    }
}

/// Operands of the original's join commands, separated by blanks.
pub fn glite_join(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let operands: Vec<Option<&str>> = text.split(' ').map(glite::operand).collect();
    if let Ok(key) = glite::join_key(&operands) {
        assert!(key.len() % 4 == 0 && key.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
    if let Ok(password) = glite::join_password(&operands) {
        assert!(!password.expose().contains(&0), "a password has no NUL");
    }
    let _ = glite::shares_of_lines(text);
}

/// What a peer presents in a handshake: certificates, each with its length (two bytes, big endian) before it.
pub fn certificate_chain(data: &[u8]) {
    let mut chain = Vec::new();
    let mut rest = data;
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let (certificate, after) = after.split_at(usize::from(u16::from_be_bytes(*length)).min(after.len()));
        chain.push(CertificateDer::from(certificate));
        rest = after;
    }
    if let Ok(parsed) = grid_identity::chain::parse(&chain) {
        assert_eq!(parsed.len(), chain.len());
        for certificate in parsed {
            let dn = certificate.dn();
            assert!(dn.is_empty() || dn.starts_with('/'), "{dn}");
            assert!(
                dn.bytes().all(|byte| (0x20..0x7f).contains(&byte)),
                "a name with control characters: {dn:?}"
            );
        }
    }
}

/// A revocation list as an authority publishes it, in DER.
pub fn revocation_list(data: &[u8]) {
    let _ = grid_identity::crl::parse(data);
}

/// A signing policy, and the newer kind of it.
pub fn signing_policy(data: &[u8]) {
    for parsed in [
        grid_identity::signing_policy::parse(data),
        grid_identity::signing_policy::parse_namespaces(data),
    ] {
        for rule in parsed.iter().flatten() {
            // Long subjects with many repetitions are what patterns choke on.
            let _ = rule.allows(&"/O=Grid/OU=a".repeat(50));
        }
    }
}

/// A name as DER and as text: the canonical text is canonical.
pub fn distinguished_name(data: &[u8]) {
    let _ = grid_identity::dn::slash(data);
    let text = String::from_utf8_lossy(data);
    let canonical = grid_identity::dn::canonical(&text);
    assert_eq!(grid_identity::dn::canonical(&canonical), canonical);
}

/// What a proxy carries of VOMS servers: groups and roles are canonical, and of their VO.
pub fn attribute_certificates(data: &[u8]) {
    let list = grid_identity::voms::parse(data).unwrap_or_default();
    for ac in list.into_iter().flatten() {
        assert!(!ac.vo().contains(['/', '\0']) && !ac.host().contains(['/', '\0']) && !ac.vo().starts_with('.'));
        for fqan in ac.fqans() {
            assert!(fqan.starts_with(&format!("/{}", ac.vo())), "{fqan}");
            let again = grid_identity::voms::fqan::canonical(fqan.as_bytes());
            assert_eq!(again.as_ref(), Some(fqan));
        }
    }
}

/// An LSC file.
pub fn lsc_file(data: &[u8]) {
    if let Ok(lsc) = grid_identity::voms::Lsc::parse(data) {
        assert!(!lsc.names(&[]), "nobody is believed");
    }
}

/// What mysqldump wrote of an original Hydra's database: what can be imported of it fits its stores.
pub fn mysql_dump(data: &[u8]) {
    let Ok(dump) = hydra_keystore::legacy::dump::read(data) else {
        return;
    };
    let stores: [StoreId; 3] = ["a", "b", "c"].map(|id| id.parse().expect("a store id"));
    let own = stores[1].clone();
    let plan = hydra_keystore::legacy::Plan::new(stores.into(), own.clone(), 100).expect("three stores");
    for candidate in hydra_keystore::legacy::candidates(vec![dump], &plan).keys {
        let put = candidate.put;
        let place = usize::from(put.share.index) - 1;
        assert!(put.sharing.stores[place] == own && put.sharing.m <= put.sharing.n);
        assert_eq!(put.share.data.0.len() * 8, put.key_bits as usize);
    }
}

/// The header of a sealed file: one that reads is written back byte for byte.
pub fn sealed_header(data: &[u8]) {
    if let Ok(header) = Header::decode(data) {
        assert_eq!(header.encode().expect("what was read can be written")[..], data[..512]);
    }
}

/// A key (32 bytes) and a sealed file: pieces that are read one by one are those of the whole.
pub fn sealed_file(data: &[u8]) {
    let (key, file) = data.split_at(data.len().min(32));
    let (Some(key), Ok(reader)) = (Key::from_slice(key), RangeReader::open(file, Input::Stdin)) else {
        return;
    };
    let size =
        usize::try_from(reader.plaintext_bytes()).expect("a plaintext is shorter than its file, which is in memory");
    assert!(size < file.len());
    let reader = reader.unlock(&key).expect("every key can be tried");
    let Ok(whole) = reader.read(0, size + 1) else {
        return;
    };
    assert_eq!(whole.len(), size);
    let middle = size / 2;
    let first = reader.read(0, middle).expect("verified before");
    let second = reader.read(middle as u64, size).expect("verified before");
    assert!(whole[..middle] == first[..] && whole[middle..] == second[..]);
    assert!(reader.read(size as u64, 1).expect("verified before").is_empty());
}

/// What follows the header of a request for an association, of the answer, or of a data unit: what is read of the first
/// two is written back as what reads the same.
pub fn dicom_association(data: &[u8]) {
    use dicom_net::pdu::{AssociateAccept, AssociateRequest, HEADER_BYTES, Header, Reject, next_value};
    if let Ok(request) = AssociateRequest::decode(data) {
        let written = request.encode();
        let again = AssociateRequest::decode(&written[HEADER_BYTES..]).expect("what we write can be read");
        assert_eq!(again, request);
        if let Ok(accept) = AssociateAccept::decode(data) {
            let written = accept.encode(&request);
            let again = AssociateAccept::decode(&written[HEADER_BYTES..]);
            // without a syntax an accepted context cannot be written
            let can_be = accept
                .contexts
                .iter()
                .all(|answer| (answer.result == 0) == answer.transfer_syntax.is_some());
            assert!(!can_be || again.expect("what we write can be read") == accept);
        }
    }
    let _ = AssociateAccept::decode(data);
    let _ = Reject::decode(data);
    if let Some(header) = data.first_chunk() {
        let _ = Header::decode(*header);
    }
    let mut at = 0;
    while let Ok(Some(value)) = next_value(data, at) {
        assert!(at < value.start && value.start <= value.end && value.end <= data.len());
        at = value.end;
    }
}

/// A command set of DIMSE: it is written back as what reads the same.
pub fn dicom_command(data: &[u8]) {
    use dicom_net::command::{Command, Status};
    if let Ok(command) = Command::decode(data) {
        assert_eq!(
            Command::decode(&command.encode()).expect("what we write can be read"),
            command
        );
        let reply = Command::reply(&command, Status::SUCCESS);
        Command::decode(&reply.encode()).expect("an answer can be read");
    }
}

/// An instance that comes in, as a file or as a bare data set, and the answer to a query: no byte of it is lost.
pub fn dicom_instance(data: &[u8]) {
    use std::io::Read;

    use dicom_net::Uid;
    use dicom_net::dataset::{Attributes, FileMeta, read_identity, syntax};
    let mut rest = data;
    let whole = |kept: &[u8], rest: &mut &[u8]| {
        let mut all = kept.to_vec();
        rest.read_to_end(&mut all).expect("a slice can be read");
        assert_eq!(all, data);
    };
    if let Ok((meta, kept)) = FileMeta::read(&mut rest) {
        let _ = read_identity(rest, &meta.transfer_syntax);
        whole(&kept, &mut rest);
    }
    for syntax in [syntax::IMPLICIT_LITTLE, syntax::EXPLICIT_LITTLE, syntax::EXPLICIT_BIG] {
        let mut rest = data;
        let syntax = Uid::new(syntax).expect("an identifier");
        if let Ok((_, kept)) = read_identity(&mut rest, &syntax) {
            whole(&kept, &mut rest);
        }
    }
    if let Ok(attributes) = Attributes::decode(data) {
        assert!(Attributes::decode(&attributes.encode()).is_ok_and(|again| again == attributes));
    }
}

/// A body of several parts: the first line is its content type, the rest the body.
pub fn dicom_multipart(data: &[u8]) {
    use dicom_net::multipart::{boundary, split};
    let at = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (kind, body) = data.split_at(at);
    let found = boundary(&String::from_utf8_lossy(kind));
    let found = found.unwrap_or_else(|_| b"b".to_vec());
    if let Ok(parts) = split(body.get(1..).unwrap_or_default(), &found) {
        let bytes: usize = parts.iter().map(Vec::len).sum();
        assert!(bytes <= body.len());
        let delimiter = [b"\r\n--".as_slice(), &found].concat();
        for part in parts {
            assert!(!part.windows(delimiter.len()).any(|window| window == delimiter));
        }
    }
}

/// A request of STOW-RS: its media type on the first line, its body behind. What is handed on is what the parts have,
/// and every part is answered for.
pub fn stow_body(data: &[u8]) {
    use dicom_net::{Arrival, Taken, stow};
    const MOST: usize = 8;
    let at = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (kind, body) = data.split_at(at);
    let kind = String::from_utf8_lossy(kind);
    let mut kept = 0;
    let mut sink = |arrival: &Arrival, file: &mut dyn std::io::Read| {
        let mut bytes = Vec::new();
        if file.read_to_end(&mut bytes).is_err() {
            return Taken::Dropped;
        }
        assert!(bytes.len() <= body.len());
        assert!(!arrival.identity.instance.as_str().is_empty());
        kept += 1;
        Taken::Kept
    };
    if let Ok(stored) = stow::receive(&kind, body.get(1..).unwrap_or_default(), None, MOST, &mut sink) {
        let good = stored.iter().filter(|one| one.status.is_success());
        assert!(good.clone().all(|one| one.what.is_some()));
        assert!(stored.len() <= MOST && good.count() <= kept);
        let (status, answer) = stow::answer(&stored);
        assert!([200, 202, 409].contains(&status) && answer.is_object());
    }
}

/// A body of the Tape REST API, of each kind: never more files than are allowed, and none for longer.
pub fn tape_body(data: &[u8]) {
    use dicom_recall::tape;
    const MOST: usize = 16;
    const LONGEST_S: u64 = 1000;
    if let Ok(wishes) = tape::wishes(data, MOST, LONGEST_S) {
        assert!((1..=MOST).contains(&wishes.len()));
        let names: std::collections::BTreeSet<&str> = wishes.iter().map(|wish| wish.name.as_str()).collect();
        assert_eq!(names.len(), wishes.len(), "each file once");
        assert!(
            wishes
                .iter()
                .all(|wish| wish.lifetime_s.is_none_or(|lifetime| lifetime <= LONGEST_S))
        );
    }
    if let Ok(paths) = tape::paths(data, MOST) {
        assert!((1..=MOST).contains(&paths.len()));
    }
    let _ = tape::is_request(&String::from_utf8_lossy(data));
}

/// What studies are looked for by, on a line or in lines: nothing that is read shows a value.
pub fn study_query(data: &[u8]) {
    use dicom_net::Query;
    let text = String::from_utf8_lossy(data);
    for parsed in [Query::parse(&text), Query::parse_lines(&text)] {
        match parsed {
            Ok(query) => assert!(
                format!("{query:?}")
                    .bytes()
                    .all(|byte| b" ,\"{}".contains(&byte) || byte.is_ascii_alphabetic())
            ),
            Err(error) => assert!(error.to_string().len() < 500),
        }
    }
}

/// The content of a frame of the line, from either end, or a question to the agent or its answer: what is read is
/// written back as what reads the same.
pub fn recall_line(data: &[u8]) {
    use dicom_recall::ask::{Answer, Ask};
    use dicom_recall::line::{self, Frame, FromDaemon, FromPlace};
    fn frame<M: serde::de::DeserializeOwned + serde::Serialize + PartialEq + std::fmt::Debug>(data: &[u8]) {
        match line::parse::<M>(data) {
            Ok(Frame::Message(message)) => {
                let written = line::message(&message);
                let again = line::parse::<M>(&written[4..]).expect("what we write can be read");
                assert_eq!(again, Frame::Message(message));
            }
            Ok(Frame::Piece { transfer, bytes }) => {
                assert!(!bytes.is_empty() && bytes.len() <= line::LONGEST_PIECE);
                assert_eq!(line::piece(transfer, &bytes)[4..], *data);
            }
            Err(_) => {}
        }
    }
    fn json<M: serde::de::DeserializeOwned + serde::Serialize + PartialEq + std::fmt::Debug>(data: &[u8]) {
        if let Ok(read) = serde_json::from_slice::<M>(data) {
            let written = serde_json::to_vec(&read).expect("what was read can be written");
            assert!(!written.contains(&b'\n'), "a line is a line");
            let again: M = serde_json::from_slice(&written).expect("what we write can be read");
            assert_eq!(again, read);
        }
    }
    frame::<FromDaemon>(data);
    frame::<FromPlace>(data);
    json::<Ask>(data);
    json::<Answer>(data);
}

/// A search of the catalogue: what is read is printed as what reads the same, and no text of it becomes SQL.
pub fn catalog_query(data: &[u8]) {
    use mdm_catalog::LogicalName;
    use mdm_catalog::database::Dialect;
    use mdm_catalog::query::resolve::SchemaAttributes;
    use mdm_catalog::query::sql::{Page, Route, statements};
    use mdm_catalog::query::{Scope, Tokens, parse, resolve};
    use mdm_catalog::wire::{AttributeDefinition, Part, Type};
    struct Plain;
    impl Tokens for Plain {
        fn whole(&self, _: i64, value: &str) -> Vec<u8> {
            value.as_bytes().to_vec()
        }
        fn name_part(&self, _: i64, part: &str) -> Vec<u8> {
            part.as_bytes().to_vec()
        }
    }
    let Ok(query) = parse(&String::from_utf8_lossy(data)) else {
        return;
    };
    let again = parse(&query.to_string()).expect("what we print can be read");
    assert_eq!(again, query);
    let attribute = |(number, (name, kind, half, dicom)): (i64, (&str, Type, Part, Option<&str>))| {
        let definition = AttributeDefinition {
            name: name.to_owned(),
            kind,
            half,
            indexed: true,
            dicom: dicom.map(str::to_owned),
        };
        (number, definition)
    };
    let definitions = [
        ("a", Type::String, Part::Anonymous, Some("Modality")),
        ("b", Type::Integer, Part::Anonymous, None),
        ("c", Type::Float, Part::Anonymous, None),
        ("d", Type::Date, Part::Anonymous, Some("StudyDate")),
        ("e", Type::Time, Part::Anonymous, None),
        ("f", Type::List, Part::Anonymous, None),
        ("g", Type::String, Part::Identifying, Some("PatientName")),
    ];
    let attributes = SchemaAttributes {
        attributes: (1..).zip(definitions).map(attribute).collect(),
        identifying: true,
    };
    let Ok(resolved) = resolve(&query, &attributes) else {
        return;
    };
    let scope = Scope {
        from: &LogicalName::root(),
        schema: Some(1),
        names: &[1],
        anonymous: &[1],
        identifying: &[1],
        operations: &[],
        tokens: &Plain,
    };
    let page = Page {
        select: &["e.path"],
        after: None,
        files: 10,
    };
    for (dialect, route) in [
        (Dialect::Sqlite, Route::Order),
        (Dialect::Sqlite, Route::First(0)),
        (Dialect::Postgres, Route::Free),
    ] {
        for statement in statements(dialect, &resolved, &scope, route, &page) {
            let is_ours = |letter: char| letter.is_ascii_alphanumeric() || " _.,()=<>?+*'\\".contains(letter);
            assert!(statement.text.chars().all(is_ours), "{}", statement.text);
            let texts = statement.text.matches('\'').count();
            assert_eq!(
                texts,
                2 * statement.text.matches("ESCAPE '\\'").count(),
                "{}",
                statement.text
            );
            let placeholders = statement.text.matches('?').count();
            assert!(placeholders >= statement.data.len(), "{}", statement.text);
        }
    }
}
