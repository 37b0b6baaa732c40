//! `[defaults]` and `[[defaults.prefix]]` of a `config.toml`.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Reader;
use crate::config::defaults::{Defaults, NewPermissions};
use crate::permissions::check_principal;

impl Reader<'_> {
    pub(super) fn defaults(&mut self, value: &Spanned<DeValue<'_>>) -> Option<Defaults> {
        let table = self.table("defaults", value)?;
        let mut defaults = Defaults::default();
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            if name == "prefix" {
                self.prefixes(value, &mut defaults);
            } else if !self.new_permissions(name, value, &mut defaults.all) {
                self.unknown(&key.span(), name, "group, perms, acl, prefix");
            }
        }
        Some(defaults)
    }

    fn prefixes(&mut self, value: &Spanned<DeValue<'_>>, defaults: &mut Defaults) {
        let Some(list) = value.get_ref().as_array() else {
            self.fault(
                Some(&value.span()),
                "prefixes are written as `[[defaults.prefix]]`, once for each",
            );
            return;
        };
        for item in list {
            let Some(table) = self.table("defaults.prefix", item) else {
                continue;
            };
            let (prefix, said) = self.prefix(table);
            match prefix {
                Some(prefix) if defaults.prefixes.iter().any(|(known, _)| *known == prefix) => {
                    self.fault(Some(&item.span()), format!("two defaults have the prefix `{prefix}`"));
                }
                Some(prefix) => defaults.prefixes.push((prefix, said)),
                None => self.fault(Some(&item.span()), "a default has no `prefix`"),
            }
        }
    }

    fn prefix(&mut self, table: &DeTable<'_>) -> (Option<String>, NewPermissions) {
        let (mut prefix, mut said) = (None, NewPermissions::default());
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            if name == "prefix" {
                prefix = self.string(name, value).map(str::to_owned);
            } else if !self.new_permissions(name, value, &mut said) {
                self.unknown(&key.span(), name, "prefix, group, perms, acl");
            }
        }
        (prefix, said)
    }

    /// Whether the key is known.
    fn new_permissions(&mut self, name: &str, value: &Spanned<DeValue<'_>>, said: &mut NewPermissions) -> bool {
        match name {
            "group" => {
                said.group = self.string(name, value).map(str::to_owned);
                if let Some(Err(error)) = said.group.as_deref().map(check_principal) {
                    self.fault(Some(&value.span()), format!("`group`: {error}"));
                }
            }
            "perms" => {
                let parsed = self.string(name, value).map(str::parse);
                said.mode = parsed.and_then(|parsed| {
                    let told = |error: crate::permissions::text::ModeError| {
                        self.fault(Some(&value.span()), format!("`perms`: {error}"));
                    };
                    parsed.map_err(told).ok()
                });
            }
            "acl" => match value.get_ref().as_array() {
                Some(lines) => {
                    let lines = lines.iter().filter_map(|line| {
                        let parsed = self.string("acl", line)?.parse();
                        let told = |error: crate::permissions::text::AclTextError| {
                            self.fault(Some(&line.span()), format!("`acl`: {error}"));
                        };
                        parsed.map_err(told).ok()
                    });
                    said.acl = Some(lines.collect());
                }
                None => self.fault(Some(&value.span()), "`acl` must be a list of texts `PRINCIPAL:PERMS`"),
            },
            _ => return false,
        }
        true
    }
}
