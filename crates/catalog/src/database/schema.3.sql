-- Which permission record (as JSON, and its number) was replaced by which, when (seconds), and of which part (the column
-- of `entries`): a search under way sees by that whether something was taken from its reader.
CREATE TABLE changed_records(
    number {ID},
    at BIGINT NOT NULL,
    part {TEXT} NOT NULL,
    before {TEXT} NOT NULL,
    before_id BIGINT NOT NULL,
    after BIGINT NOT NULL
);
CREATE INDEX changed_records_at ON changed_records(at);
-- Entries by their permission records, so that it is soon known which records nobody uses any more; those that nobody
-- used before go. They also say how many entries somebody owns.
CREATE INDEX entries_name_record ON entries(name_record);
CREATE INDEX entries_anonymous_record ON entries(anonymous_record);
CREATE INDEX entries_identifying_record ON entries(identifying_record);
DELETE FROM records WHERE NOT EXISTS (SELECT 1 FROM entries e WHERE e.name_record = records.id)
    AND NOT EXISTS (SELECT 1 FROM entries e WHERE e.anonymous_record = records.id)
    AND NOT EXISTS (SELECT 1 FROM entries e WHERE e.identifying_record = records.id);
