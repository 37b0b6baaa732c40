-- Schema 3: who may list what, so that a page of a list is filled from the caller's entries alone; and which entries are
-- in quarantine since a restore (docs/src/operating.md).
CREATE TABLE principals(
    principal INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

-- A row for each principal that an entry's permission record grants `l`; the principal '' is everybody.
CREATE TABLE listable(
    principal INTEGER NOT NULL,
    key_id TEXT NOT NULL,
    last_component TEXT NOT NULL,
    PRIMARY KEY (principal, key_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX listable_by_last_component ON listable(principal, last_component, key_id);

CREATE INDEX entries_in_quarantine ON entries(key_id) WHERE restored = 1;

-- `l` is the fifth of the eight letters.
CREATE TEMP TABLE grants_to_list AS
    SELECT key_id, last_component, owner AS name FROM entries WHERE substr(user_permissions, 5, 1) = 'l'
    UNION SELECT key_id, last_component, "group" FROM entries WHERE substr(group_permissions, 5, 1) = 'l'
    UNION SELECT key_id, last_component, '' FROM entries WHERE substr(other_permissions, 5, 1) = 'l'
    UNION SELECT key_id, last_component, line.value ->> 'principal' FROM entries, json_each(entries.acl) AS line
        WHERE substr(line.value ->> 'permissions', 5, 1) = 'l';
INSERT INTO principals(name) SELECT DISTINCT name FROM grants_to_list;
INSERT INTO listable(principal, key_id, last_component)
    SELECT principal, key_id, last_component FROM grants_to_list JOIN principals USING (name);
DROP TABLE grants_to_list;
