-- Which permission record took another's place, and of which part (the column of `entries`): a search under way sees by
-- that whether something was taken from its reader.
CREATE TABLE changed_records(
    number {ID},
    part {TEXT} NOT NULL,
    before BIGINT NOT NULL REFERENCES records(id),
    after BIGINT NOT NULL REFERENCES records(id)
);
