-- Files by a replica, and by their key. A URL may be longer than PostgreSQL takes into an index.
CREATE INDEX replicas_url ON replicas(substr(url, 1, 400));
CREATE INDEX entries_key ON entries(key_id) WHERE key_id IS NOT NULL;
