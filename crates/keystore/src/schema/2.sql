-- Schema 2: signed heads of the audit log, so that a tail cut off is noticed (docs/src/operating.md).
CREATE TABLE audit_heads(
    sequence INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    hash BLOB NOT NULL CHECK (length(hash) = 32),
    signature BLOB NOT NULL CHECK (length(signature) = 32)
) STRICT;
CREATE TRIGGER audit_heads_are_not_changed BEFORE UPDATE ON audit_heads
    BEGIN SELECT RAISE(ABORT, 'the audit log is append only'); END;
CREATE TRIGGER audit_heads_are_not_cut BEFORE DELETE ON audit_heads
    BEGIN SELECT RAISE(ABORT, 'the audit log is append only'); END;
