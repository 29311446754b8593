package store

// Every SQL statement of the package, but for the schema, is a constant whose
// name begins with sql, in a file statements_*.go of its topic. Tests hold each
// to what follows, and require that some test runs it.
//
//   - PostgreSQL and CockroachDB both run it.
//   - Sets come in as arrays that unnest side by side.
//   - It names no key twice: both databases refuse that in an upsert. Its keys come
//     sorted, so that transactions that write the same rows meet in the same order
//     and one waits for the other instead of deadlocking.

// The frame of transactions.
const (
	sqlBegin    = `BEGIN`
	sqlCommit   = `COMMIT`
	sqlRollback = `ROLLBACK`

	// Several reads that must see one moment.
	sqlBeginRead = `BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY`
)

// The newest migration has been applied, and whether writes are refused.
const sqlPing = `
SELECT count(*), current_setting('transaction_read_only') FROM pg_catalog.pg_tables WHERE tablename = 'quarantined_batch'`

// The server process that answers, if there is a pooler in between.
const sqlServerProcess = `
SELECT pg_backend_pid()`
