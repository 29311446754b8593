package store

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Settings of a database URL that decide how connections are made.
const (
	targetSetting   = "target_session_attrs"
	execModeSetting = "default_query_exec_mode"
)

// connector prepares the connections of a pool.
//
// Where the URL says nothing else, it asks for a server that takes writes: of
// several hosts the first that does. It finds out whether a pooler hands each
// transaction to another server process, and then prepares no statements there.
type connector struct {
	detects bool // the URL does not say how statements are executed
	pool    atomic.Pointer[pgxpool.Pool]

	mu     sync.Mutex
	known  bool
	pooled bool // through a pooler; see throughPooler
}

// configure has the connections of config made by c.
func (c *connector) configure(config *pgxpool.Config, url string) {
	configureConn(config.ConnConfig, url)
	c.detects = !strings.Contains(url, execModeSetting)
	config.BeforeConnect = c.beforeConnect
	fatal := config.ConnConfig.OnPgError
	config.ConnConfig.OnPgError = func(conn *pgconn.PgConn, err *pgconn.PgError) bool {
		if !isOfConnection(err.Code) {
			return fatal(conn, err)
		}
		if pool := c.pool.Load(); pool != nil && err.Code == readOnlyTransaction {
			pool.Reset() // the other connections lead to the same server
		}
		return false // it is closed, and the pool makes another
	}
}

// configureConn sets what every connection has, be it of a pool or not.
func configureConn(config *pgx.ConnConfig, url string) {
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = 10 * time.Second
	}
	if !strings.Contains(url, targetSetting) && os.Getenv("PGTARGETSESSIONATTRS") == "" {
		config.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
}

// reads reports whether the URL asks for a server that need take no writes.
func reads(config *pgx.ConnConfig, url string) bool {
	at := strings.Index(url, targetSetting)
	if at < 0 {
		return os.Getenv("PGTARGETSESSIONATTRS") != "" && config.ValidateConnect == nil
	}
	named := strings.TrimLeft(url[at+len(targetSetting):], "= ")
	return !strings.HasPrefix(named, "read-write") && !strings.HasPrefix(named, "primary")
}

func (c *connector) beforeConnect(ctx context.Context, config *pgx.ConnConfig) error {
	if !c.detects {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.known {
		pooled, err := throughPooler(ctx, config)
		if err != nil {
			return err
		}
		c.known, c.pooled = true, pooled
	}
	if c.pooled {
		config.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	}
	return nil
}

// throughPooler reports whether a pooler is between this process and the database:
// the server process that answers is not the one that the login named. In
// PgBouncer's transaction mode a prepared statement would be looked for in a
// process that does not have it.
func throughPooler(ctx context.Context, config *pgx.ConnConfig) (bool, error) {
	config = config.Copy()
	config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return false, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if conn.PgConn().ParameterStatus("crdb_version") != "" {
		return false, nil
	}
	var pid uint32
	if err := conn.QueryRow(ctx, sqlServerProcess).Scan(&pid); err != nil {
		return false, fmt.Errorf("look for a pooler: %w", err)
	}
	return pid != conn.PgConn().PID(), nil
}

// readOnlyTransaction is the SQLSTATE of a write on a server that takes none: a
// standby, or one that was made read-only.
const readOnlyTransaction = "25006"

// isOfConnection reports whether an error is of the connection and not of the
// statement: over another connection the statement may succeed. Nothing was
// written.
func isOfConnection(sqlState string) bool {
	return slices.Contains([]string{
		readOnlyTransaction,
		"26000", // invalid_sql_statement_name: a pooler has given us a server process that did not prepare it
		"42P05", // duplicate_prepared_statement: or one that has prepared another
	}, sqlState)
}
