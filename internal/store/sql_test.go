package store_test

import (
	"context"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/postgres/postgrestest"
)

// envCockroach names the environment variable with the URL of a CockroachDB
// whose role may create databases.
const envCockroach = "ROLLCALL_COCKROACH_URL"

// statement is one of the package's.
type statement struct {
	sql   string
	topic string // its file's: statements_apply.go has those of apply
}

// statements are the constants of statements*.go whose names begin with sql, by
// name, from the source: none can be forgotten.
func statements(tb testing.TB) map[string]statement {
	tb.Helper()
	exprs, topics := map[string]ast.Expr{}, map[string]string{}
	for path, file := range sources(tb, ".") {
		for name, e := range constants(file) {
			exprs[name] = e
			if strings.HasPrefix(path, "statements") {
				topics[name] = strings.TrimPrefix(strings.TrimSuffix(path, ".go"), "statements_")
			}
		}
	}
	for _, file := range sources(tb, "../device") {
		for name, e := range constants(file) {
			exprs["device."+name] = e
		}
	}
	var value func(ast.Expr) string
	value = func(e ast.Expr) string {
		switch e := e.(type) {
		case *ast.BasicLit:
			s, err := strconv.Unquote(e.Value)
			require.NoError(tb, err)
			return s
		case *ast.BinaryExpr:
			return value(e.X) + value(e.Y)
		case *ast.Ident:
			require.Contains(tb, exprs, e.Name)
			return value(exprs[e.Name])
		case *ast.SelectorExpr:
			name := fmt.Sprintf("%s.%s", e.X, e.Sel)
			require.Contains(tb, exprs, name)
			return value(exprs[name])
		}
		require.Fail(tb, "a statement is more than strings", "%T", e)
		return ""
	}
	out := map[string]statement{}
	for name, e := range exprs {
		if topics[name] != "" && strings.HasPrefix(name, "sql") {
			out[name] = statement{value(e), topics[name]}
		}
	}
	require.Greater(tb, len(out), 80)
	return out
}

// constants are the constants of a file that have a value of their own, by name.
func constants(file *ast.File) map[string]ast.Expr {
	out := map[string]ast.Expr{}
	for _, d := range file.Decls {
		if d, ok := d.(*ast.GenDecl); ok && d.Tok == token.CONST {
			for _, spec := range d.Specs {
				v := spec.(*ast.ValueSpec)
				for i, e := range v.Values {
					out[v.Names[i].Name] = e
				}
			}
		}
	}
	return out
}

// sources are a package's files without tests, by name.
func sources(tb testing.TB, dir string) map[string]*ast.File {
	tb.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	require.NoError(tb, err)
	out := map[string]*ast.File{}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		out[filepath.Base(path)], err = parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution|parser.ParseComments)
		require.NoError(tb, err)
	}
	return out
}

// Nothing but statements*.go has SQL: what is elsewhere no test below would see.
func TestStatementsAreInOnePlace(t *testing.T) {
	looksLikeSQL := regexp.MustCompile(`^\s*(SELECT|INSERT|UPDATE|DELETE|WITH|BEGIN|ROLLBACK|SAVEPOINT|SET|LOCK|FROM|CREATE|ALTER|DROP|TRUNCATE)\b`)
	for path, file := range sources(t, ".") {
		ast.Inspect(file, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING && !strings.HasPrefix(path, "statements") {
				s, err := strconv.Unquote(lit.Value)
				require.NoError(t, err)
				require.False(t, looksLikeSQL.MatchString(s), "%s: %s", path, lit.Value)
			}
			return true
		})
	}
}

// The tables are written by whom the package's documentation says.
func TestWritersOfTables(t *testing.T) {
	writers := map[string]string{
		"apply": "apply", "identity": "apply", "merge": "apply people", "conflict": "people", "quarantine": "people", "teststate": "people", "split": "people", "rae": "people",
		"retention": "retention", "query": "", "statements": "",
	}
	got := map[string]map[string]bool{}
	for name, s := range statements(t) {
		require.Contains(t, writers, s.topic, "%s: say who runs the statements of %s", name, s.topic)
		for _, table := range written(s.sql) {
			require.NotEmpty(t, writers[s.topic], "%s writes %s", name, table)
			for who := range strings.FieldsSeq(writers[s.topic]) {
				if got[table] == nil {
					got[table] = map[string]bool{}
				}
				got[table][who] = true
			}
		}
	}
	want := map[string]map[string]bool{}
	line := regexp.MustCompile(`(?m)^\t([a-z_]+) {2,}(.+)$`)
	for _, m := range line.FindAllStringSubmatch(sources(t, ".")["store.go"].Doc.Text(), -1) {
		want[m[1]] = map[string]bool{}
		for who := range strings.SplitSeq(m[2], ", ") {
			want[m[1]][strings.Fields(who)[0]] = true
		}
	}
	require.Equal(t, want, got)
}

// used records the statements that the tests' stores were given.
var used recorder

type recorder struct {
	mu  sync.Mutex
	sql map[string]bool
}

func (r *recorder) add(sql string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sql == nil {
		r.sql = map[string]bool{}
	}
	r.sql[sql] = true
}

func (r *recorder) TraceQueryStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceQueryStartData) context.Context {
	r.add(d.SQL)
	return ctx
}

func (r *recorder) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (r *recorder) TraceBatchStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceBatchStartData) context.Context {
	for _, q := range d.Batch.QueuedQueries {
		r.add(q.SQL)
	}
	return ctx
}

func (r *recorder) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}
func (r *recorder) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData)     {}

// Every statement is used by some test, where all of them ran: what no test
// runs, nobody has seen work.
func TestMain(m *testing.M) {
	code := m.Run()
	all := flag.Lookup("test.run").Value.String() == "" && flag.Lookup("test.skip").Value.String() == "" &&
		flag.Lookup("test.list").Value.String() == "" && !testing.Short()
	if code == 0 && all && len(used.sql) > 0 {
		var unused []string
		for name, s := range statements(failing{}) {
			if !used.sql[s.sql] && mentioned(name) {
				unused = append(unused, name)
			}
		}
		if len(unused) > 0 {
			slices.Sort(unused)
			fmt.Println("FAIL: no test has a store run these statements:", strings.Join(unused, ", "))
			code = 1
		}
	}
	os.Exit(code)
}

// mentioned reports whether the package's code uses the statement. One that it
// does not is for the linter to find.
func mentioned(name string) bool {
	files, err := filepath.Glob("*.go")
	if err != nil {
		panic(err)
	}
	for _, path := range files {
		if strings.HasPrefix(path, "statements") || strings.HasSuffix(path, "_test.go") {
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil {
			panic(err)
		}
		if regexp.MustCompile(`\b` + name + `\b`).Match(b) {
			return true
		}
	}
	return false
}

// failing is for where no test is at hand.
type failing struct{ testing.TB }

func (failing) Helper()                        {}
func (failing) Errorf(format string, a ...any) { panic(fmt.Sprintf(format, a...)) }
func (failing) FailNow()                       { panic("failed") }

// The database takes every statement: it parses, and its tables, columns and
// types are there.
func TestStatementsPrepare(t *testing.T) {
	_, url := open(t)
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	for name, s := range statements(t) {
		_, err := conn.Prepare(t.Context(), name, s.sql)
		require.NoError(t, err, name)
	}
}

// forbidden is what only one of the databases has, or what means something else
// in the other.
var forbidden = map[string]*regexp.Regexp{
	"advisory locks: CockroachDB takes them and does nothing":        regexp.MustCompile(`(?i)\bpg_(try_)?advisory_`),
	"SERIAL: not a sequence of small numbers on CockroachDB":         regexp.MustCompile(`\bSERIAL[248]?\b|(?i)\b(BIG|SMALL)SERIAL\b`),
	"LISTEN and NOTIFY: PostgreSQL's alone":                          regexp.MustCompile(`(?i)\b(LISTEN|NOTIFY)\b`),
	"system columns: PostgreSQL's alone":                             regexp.MustCompile(`(?i)\b(xmin|xmax|ctid|cmin|cmax)\b`),
	"CREATE INDEX CONCURRENTLY: PostgreSQL's alone":                  regexp.MustCompile(`(?i)\bCONCURRENTLY\b`),
	"an integer without its size: 8 bytes on CockroachDB, else 4":    regexp.MustCompile(`(?i)\b(INT|INTEGER|BIGINT|SMALLINT)\b`),
	"an array of JSONB: CockroachDB has none":                        regexp.MustCompile(`(?i)\bJSONB?\s*\[\]`),
	"UPSERT: CockroachDB's alone":                                    regexp.MustCompile(`(?i)\bUPSERT\b`),
	"MERGE: PostgreSQL's alone":                                      regexp.MustCompile(`(?i)\bMERGE\s+INTO\b`),
	"code in the database":                                           regexp.MustCompile(`(?i)\b(CREATE\s+(OR\s+REPLACE\s+)?(FUNCTION|PROCEDURE|TRIGGER|RULE|EXTENSION|TYPE)|DO\s+\$)`),
	"storage of one database":                                        regexp.MustCompile(`(?i)\b(UNLOGGED|TABLESPACE|VACUUM|INHERITS|EXCLUDE\s+USING|DEFERRABLE)\b`),
	"savepoints: CockroachDB's client protocol gives them a meaning": regexp.MustCompile(`(?i)\bSAVEPOINT\b`),
}

// mutation is a write of a table.
var mutation = regexp.MustCompile(`(?i)\b(?:INSERT\s+INTO|DELETE\s+FROM|UPDATE)\s+([a-z_]+)`)

// unportable says why not both databases run the statement, or nothing.
func unportable(sql string) string {
	for why, what := range forbidden {
		if what.MatchString(sql) {
			return why
		}
	}
	tables := written(sql)
	slices.Sort(tables)
	for i := range tables {
		if i > 0 && tables[i] == tables[i-1] {
			return "one statement writes " + tables[i] + " twice: CockroachDB refuses it"
		}
	}
	return ""
}

// written are the tables that a statement writes, each as often as it does.
func written(sql string) (tables []string) {
	for _, m := range mutation.FindAllStringSubmatch(sql, -1) {
		switch table := strings.ToLower(m[1]); table {
		case "set", "nowait": // of DO UPDATE SET, of FOR UPDATE NOWAIT
		default:
			tables = append(tables, table)
		}
	}
	return tables
}

func TestStatementsArePortable(t *testing.T) {
	for name, s := range statements(t) {
		require.Empty(t, unportable(s.sql), name)
	}
	files, err := filepath.Glob("migrations/*.sql")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, path := range files {
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Contains(t, string(b), "-- +goose NO TRANSACTION", "%s: CockroachDB changes schemas outside of transactions", path)
		for sql := range strings.SplitSeq(regexp.MustCompile(`(?m)--.*$`).ReplaceAllString(string(b), ""), ";") {
			require.Empty(t, unportable(sql), "%s: %s", path, sql)
			if regexp.MustCompile(`(?i)\bCREATE\s+TABLE\b`).MatchString(sql) {
				require.Contains(t, sql, "PRIMARY KEY", "%s: CockroachDB would add a column of its own: %s", path, sql)
			}
			if regexp.MustCompile(`(?i)^\s*(CREATE|ALTER\s+TABLE\s+\w+\s+ADD\s+COLUMN)`).MatchString(sql) {
				require.Contains(t, sql, "IF NOT EXISTS", "%s: a migration that was cut short runs again: %s", path, sql)
			}
		}
	}
}

func TestUnportable(t *testing.T) {
	for _, sql := range []string{
		`SELECT pg_advisory_xact_lock($1)`, `CREATE TABLE x (id BIGSERIAL)`, `CREATE TABLE x (n INT NOT NULL)`, `SELECT $1::INTEGER[]`,
		`LISTEN changes`, `RETURNING (xmax = 0)`, `CREATE INDEX CONCURRENTLY i ON x (y)`, `SELECT unnest($1::JSONB[])`, `UPSERT INTO x VALUES (1)`,
		`WITH a AS (UPDATE x SET y = 1 RETURNING z) INSERT INTO x SELECT z FROM a`, `SAVEPOINT s`, `DO $$ BEGIN END $$`,
	} {
		require.NotEmpty(t, unportable(sql), sql)
	}
	for _, sql := range []string{
		`SELECT $1::INT8[], 'hint', interval FROM x FOR UPDATE`, `INSERT INTO x (n) SELECT 1 ON CONFLICT (n) DO UPDATE SET n = 2`,
		`WITH a AS (INSERT INTO x VALUES (1) RETURNING z) INSERT INTO y SELECT z FROM a`,
	} {
		require.Empty(t, unportable(sql), sql)
	}
}

// The whole suite, these tests among it, on CockroachDB: in a process of its
// own, whose databases are there.
func TestSuiteOnCockroachDB(t *testing.T) {
	url := os.Getenv(envCockroach)
	if url == "" {
		t.Skipf("needs CockroachDB: set %s to the URL of one, such as docker compose starts", envCockroach)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.timeout=20m", "-rapid.checks=20")
	cmd.Env = slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, envCockroach+"=") })
	cmd.Env = append(cmd.Env, postgrestest.EnvURL+"="+url)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	t.Logf("%s", out)
}

// isCockroach reports whether the database is one: for the few things that only
// PostgreSQL can be asked.
func isCockroach(t testing.TB, url string) bool {
	t.Helper()
	return strings.Contains(query[string](t, url, `SELECT version()`), "CockroachDB")
}
