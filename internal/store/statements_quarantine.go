package store

// What people ask and decide about quarantined batches.
const (
	batchColumns = `quarantine_id, session_id, rae, topic, topic_id, partition, first_offset, last_offset, cause, detail, quarantined_at,
	settled_at, settled_by, outcome`

	// The oldest first, from after ($5, $6).
	sqlListQuarantine = `
SELECT ` + batchColumns + ` FROM quarantined_batch
WHERE ($1::TEXT = '' OR rae = $1) AND ($2::UUID IS NULL OR session_id = $2) AND (cardinality($3::TEXT[]) = 0 OR cause = ANY($3))
	AND ($4::BOOL OR settled_at IS NULL)
	AND (quarantined_at > $5 OR (quarantined_at = $5 AND quarantine_id > $6::UUID))
ORDER BY quarantined_at, quarantine_id LIMIT $7`

	sqlGetQuarantine = `
SELECT ` + batchColumns + ` FROM quarantined_batch WHERE quarantine_id = ANY($1::UUID[]) ORDER BY quarantined_at, quarantine_id`

	sqlResolveQuarantine = `
UPDATE quarantined_batch SET settled_at = now(), settled_by = $2, outcome = $3 WHERE quarantine_id = ANY($1::UUID[])`
)
