-- The tables of a catalogue, for SQLite and PostgreSQL: {ID}, {KEY}, {TEXT}, {BLOB} and {BY KEY} stand for what the two
-- call differently.

-- Permission records, each distinct one once: a search computes first which of them let the caller do what.
CREATE TABLE records(
    id {ID},
    record {TEXT} NOT NULL,
    -- its SHA-256, as it may be longer than an index takes
    digest {BLOB} NOT NULL UNIQUE
);

CREATE TABLE operations(
    number {ID},
    id {TEXT} NOT NULL UNIQUE,
    what {TEXT} NOT NULL,
    owner {TEXT} NOT NULL,
    began BIGINT NOT NULL,
    -- open, committed, undone
    state {TEXT} NOT NULL,
    -- how many entries it had when it ended
    entries BIGINT NOT NULL
);
CREATE INDEX operations_owner ON operations(owner, state);

-- A schema and the directory that has it; the values of its anonymous attributes stand in the table values_ID.
CREATE TABLE schemas(
    id {ID},
    directory BIGINT NOT NULL UNIQUE
);

CREATE TABLE attributes(
    id {ID},
    schema BIGINT NOT NULL REFERENCES schemas(id),
    name {TEXT} NOT NULL,
    -- in lower case
    folded {TEXT} NOT NULL,
    -- string, integer, float, date, time, code, list
    kind {TEXT} NOT NULL,
    -- 1: of the identifying half
    identifying BIGINT NOT NULL,
    indexed BIGINT NOT NULL,
    dicom {TEXT},
    UNIQUE(schema, folded)
);

CREATE TABLE entries(
    id {ID},
    -- the directory that it lies in; NULL at the top
    parent BIGINT REFERENCES entries(id),
    path {TEXT} NOT NULL UNIQUE,
    -- 0: directory, 1: file
    kind BIGINT NOT NULL,
    guid {TEXT} NOT NULL UNIQUE,
    -- the schema that holds here; NULL where none does
    schema BIGINT REFERENCES schemas(id),
    -- the open operation that it belongs to
    operation BIGINT REFERENCES operations(number),
    size BIGINT,
    adler32 {TEXT},
    sha256 {TEXT},
    key_id {TEXT},
    -- nearline, online; NULL of a directory
    status {TEXT},
    -- seconds since 1970
    created BIGINT NOT NULL,
    modified BIGINT NOT NULL,
    version BIGINT NOT NULL,
    name_record BIGINT NOT NULL REFERENCES records(id),
    anonymous_record BIGINT NOT NULL REFERENCES records(id),
    identifying_record BIGINT NOT NULL REFERENCES records(id),
    -- the identifying half, sealed
    identifying {BLOB}
);
CREATE INDEX entries_parent ON entries(parent, path);
-- The files of a schema in each order that does not come of its attributes.
CREATE INDEX entries_schema ON entries(schema, kind, path);
CREATE INDEX entries_created ON entries(schema, kind, created, id);
CREATE INDEX entries_modified ON entries(schema, kind, modified, id);
CREATE INDEX entries_size ON entries(schema, kind, size, id);
CREATE INDEX entries_operation ON entries(operation) WHERE operation IS NOT NULL;

CREATE TABLE replicas(
    entry BIGINT NOT NULL REFERENCES entries(id),
    -- in the order they came
    place BIGINT NOT NULL,
    url {TEXT} NOT NULL,
    PRIMARY KEY(entry, url)
){BY KEY};

-- The items of lists of the anonymous half.
CREATE TABLE lists(
    attribute BIGINT NOT NULL REFERENCES attributes(id),
    item {TEXT} NOT NULL,
    entry BIGINT NOT NULL REFERENCES entries(id),
    PRIMARY KEY(attribute, item, entry)
){BY KEY};
CREATE INDEX lists_entry ON lists(entry);

-- Keyed hashes of values of the identifying half, by which they are found.
CREATE TABLE tokens(
    attribute BIGINT NOT NULL REFERENCES attributes(id),
    token {BLOB} NOT NULL,
    entry BIGINT NOT NULL REFERENCES entries(id),
    PRIMARY KEY(attribute, token, entry)
){BY KEY};
CREATE INDEX tokens_entry ON tokens(entry);

CREATE TABLE thumbnails(
    entry {KEY} REFERENCES entries(id),
    bytes {BLOB} NOT NULL
);

CREATE TABLE audit(
    sequence {KEY},
    at BIGINT NOT NULL,
    dn {TEXT} NOT NULL,
    operation {TEXT} NOT NULL,
    subject {TEXT} NOT NULL,
    outcome {TEXT} NOT NULL,
    hash {BLOB} NOT NULL
);

CREATE TABLE audit_heads(
    sequence {KEY},
    at BIGINT NOT NULL,
    hash {BLOB} NOT NULL,
    signature {BLOB} NOT NULL
);
