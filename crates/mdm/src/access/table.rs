//! Permissions of all pieces of a file beside each other, and where they do not fit together. No I/O.

use hydra_core::permissions::{Permission, PermissionRecord, Permissions};

use super::Piece;

/// The records of a file, of those pieces that it has and that are shown to the caller.
pub(super) struct Sheet<'r> {
    pub(super) records: Vec<(Piece, &'r PermissionRecord)>,
}

/// Everybody who is not named.
const OTHERS: &str = "(others)";

impl Sheet<'_> {
    fn record(&self, piece: Piece) -> Option<&PermissionRecord> {
        self.records
            .iter()
            .find(|(known, _)| *known == piece)
            .map(|(_, record)| *record)
    }

    /// Everybody whom a record names: owners, groups, then the others, each once.
    pub(super) fn principals(&self) -> Vec<String> {
        let mut principals: Vec<String> = Vec::new();
        let owners = self.records.iter().map(|(_, record)| &record.owner);
        let groups = self.records.iter().map(|(_, record)| &record.group);
        let listed = self
            .records
            .iter()
            .flat_map(|(_, record)| record.acl.iter().map(|line| &line.principal));
        for principal in owners.chain(groups).chain(listed) {
            if !principals.contains(principal) {
                principals.push(principal.clone());
            }
        }
        principals
    }

    /// What a record says of a principal by name; without a name, of everybody.
    fn says(record: &PermissionRecord, principal: Option<&str>) -> Permissions {
        let Some(principal) = principal else {
            return record.other;
        };
        let mut said = Permissions::NONE;
        if record.owner == principal {
            said = said.union(record.user);
        }
        if record.group == principal {
            said = said.union(record.group_permissions);
        }
        let lines = record.acl.iter().filter(|line| line.principal == principal);
        lines.fold(said, |said, line| said.union(line.permissions))
    }

    /// The table, a principal on a line.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let row = |cells: Vec<String>, who: &str| {
            let cells: String = cells.iter().map(|cell| format!("{cell:<12}")).collect();
            format!("{cells}{}\n", hydra_cli::printable(who))
        };
        text.push_str(&row(
            Piece::ALL.map(|piece| piece.word().to_owned()).to_vec(),
            "principal",
        ));
        let principals = self.principals();
        for who in principals.iter().map(|who| Some(who.as_str())).chain([None]) {
            let cell = |piece: &Piece| match self.record(*piece) {
                Some(record) => Self::says(record, who).to_string(),
                None => "?".to_owned(),
            };
            let cells = Piece::ALL.iter().map(cell).collect();
            text.push_str(&row(cells, &self.titled(who)));
        }
        text
    }

    /// A principal with what it is, where that is the same everywhere.
    fn titled(&self, who: Option<&str>) -> String {
        let Some(who) = who else { return OTHERS.to_owned() };
        let everywhere = |is: fn(&PermissionRecord) -> &str| self.records.iter().all(|(_, record)| is(record) == who);
        if everywhere(|record| &record.owner) {
            format!("{who} (owner)")
        } else if everywhere(|record| &record.group) {
            format!("{who} (group)")
        } else {
            who.to_owned()
        }
    }

    /// Where the pieces do not fit together, a sentence each.
    pub(super) fn disagreements(&self) -> Vec<String> {
        let mut found = Vec::new();
        found.extend(self.differing("owner", |record| &record.owner));
        found.extend(self.differing("group", |record| &record.group));
        let principals = self.principals();
        for who in principals.iter().map(|who| Some(who.as_str())).chain([None]) {
            found.extend(self.disagreements_about(who));
        }
        found
    }

    /// Where the pieces do not belong to the same.
    fn differing(&self, what: &str, of: fn(&PermissionRecord) -> &str) -> Vec<String> {
        let mut named = self.records.iter().map(|(piece, record)| (piece.word(), of(record)));
        let Some((first, principal)) = named.next() else {
            return Vec::new();
        };
        let others = named.filter(|(_, other)| *other != principal);
        let say = |(piece, other)| format!("the {what} of the {first} is {principal}, of the {piece} {other}");
        others.map(say).collect()
    }

    fn disagreements_about(&self, who: Option<&str>) -> Vec<String> {
        let may = |piece: Piece, permission: Permission| {
            let record = self.record(piece)?;
            let said = Self::says(record, who).union(record.other);
            Some(said.contains(permission))
        };
        let sees = may(Piece::Name, Permission::List);
        let reads = may(Piece::Name, Permission::Read);
        let shows = may(Piece::Anonymous, Permission::Use);
        let names = may(Piece::Identifying, Permission::Use);
        let opens = may(Piece::Key, Permission::Use);
        let yes = Some(true);
        let no = Some(false);
        let who = who.unwrap_or("everybody");
        let mut found = Vec::new();
        let mut say = |is: bool, what: &str| {
            if is {
                found.push(format!("{who} {what}"));
            }
        };
        say(
            reads == yes && opens == no,
            "may read the name but not use the key: what is fetched stays sealed",
        );
        say(opens == yes && sees == no, "may use the key but not see the name");
        say(
            opens == yes && sees == yes && reads == no,
            "may use the key but not read where the replicas are",
        );
        say(
            shows == yes && sees == no,
            "may read the anonymous half but not see the name: searches find nothing",
        );
        say(
            names == yes && sees == no,
            "may read the identifying half but not see the name",
        );
        say(
            names == yes && shows == no,
            "may read the identifying half but not the anonymous one",
        );
        found
    }
}

#[cfg(test)]
mod tests {
    use hydra_core::ids::ChangeId;
    use hydra_core::permissions::AclEntry;

    use super::*;

    fn record(owner: &str, bob: &str) -> PermissionRecord {
        let mut record = PermissionRecord::new(owner, Some("/myvo"), ChangeId::random().unwrap());
        if !bob.is_empty() {
            record.acl.push(AclEntry {
                principal: "/CN=bob".into(),
                permissions: bob.parse().unwrap(),
            });
        }
        record
    }

    #[test]
    fn what_fits_has_no_disagreement() {
        let (name, half, key) = (record("/CN=a", "lr"), record("/CN=a", "g"), record("/CN=a", "lg"));
        let identifying = record("/CN=a", "");
        let sheet = Sheet {
            records: vec![
                (Piece::Name, &name),
                (Piece::Anonymous, &half),
                (Piece::Identifying, &identifying),
                (Piece::Key, &key),
            ],
        };
        assert_eq!(sheet.disagreements(), Vec::<String>::new());
        let text = sheet.text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "name        anonymous   identifying key         principal");
        assert_eq!(
            lines[1],
            "pdrwl-gs    pdrwl-gs    pdrwl-gs    pdrwl-gs    /CN=a (owner)"
        );
        assert_eq!(
            lines[2],
            "--------    --------    --------    --------    /myvo (group)"
        );
        assert_eq!(lines[3], "--r-l---    ------g-    --------    ----l-g-    /CN=bob");
        assert_eq!(lines[4], "--------    --------    --------    --------    (others)");
    }

    #[test]
    fn each_disagreement_is_named() {
        let (name, key) = (record("/CN=a", "lr"), record("/CN=b", ""));
        let sheet = Sheet {
            records: vec![(Piece::Name, &name), (Piece::Key, &key)],
        };
        let found = sheet.disagreements();
        assert!(
            found.contains(&"the owner of the name is /CN=a, of the key /CN=b".to_owned()),
            "{found:?}"
        );
        let sealed = "/CN=bob may read the name but not use the key: what is fetched stays sealed".to_owned();
        assert!(found.contains(&sealed), "{found:?}");
        let hidden = "/CN=b may use the key but not see the name".to_owned();
        assert!(found.contains(&hidden), "{found:?}");
        assert!(sheet.text().contains('?'), "what is not shown is not told as nothing");
    }
}
