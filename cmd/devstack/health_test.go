package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/cmd/devstack/internal/kafka"
	"github.com/rollcall-platform/rollcall/cmd/devstack/internal/temporal"
	"github.com/rollcall-platform/rollcall/internal/admin"
	"github.com/rollcall-platform/rollcall/internal/porttest"
	"github.com/rollcall-platform/rollcall/internal/postgres"
	"github.com/rollcall-platform/rollcall/internal/store"
)

// engine is something that services need, stopped and started on its port.
type engine struct {
	name        string
	stop, start func()
}

// engines are real ones, and where they answer.
type engines struct {
	all                             []engine
	database, temporal, kafka, mqtt string
}

func startEngines(t *testing.T, log io.Writer) *engines {
	t.Helper()
	e := &engines{temporal: loopback(porttest.Port(t)), kafka: loopback(porttest.Port(t))}
	quiet := slog.New(slog.NewTextHandler(log, nil))
	stopping := func(stop func(context.Context) error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
		defer cancel()
		assert.NoError(t, stop(ctx))
	}
	var (
		db     *postgres.Server
		server *temporal.Server
		broker *kafka.Broker
	)
	dirs := map[string]string{"postgres": t.TempDir(), "temporal": t.TempDir(), "kafka": t.TempDir()}
	port, mqttPort := porttest.Port(t), porttest.Port(t)
	mosquitto := &process{t: t, log: log, args: mosquitto(t, mqttPort)}
	e.mqtt = "mqtt://" + loopback(mqttPort)
	e.all = []engine{
		{"PostgreSQL", func() { db.Stop() }, func() {
			var err error
			db, err = postgres.Start(t.Context(), postgres.Options{DataDir: dirs["postgres"], Port: port, Logger: quiet})
			require.NoError(t, err)
		}},
		{"Temporal", func() { stopping(server.Close) }, func() {
			var err error
			server, err = temporal.Start(t.Context(), temporal.Options{DataDir: dirs["temporal"], FrontendAddr: e.temporal, Logger: quiet})
			require.NoError(t, err)
		}},
		{"Kafka", func() { stopping(broker.Close) }, func() {
			var err error
			broker, err = kafka.Start(t.Context(), kafka.Options{DataDir: dirs["kafka"], Addr: e.kafka, Logger: quiet})
			require.NoError(t, err)
		}},
		{"MQTT", mosquitto.kill, func() {
			mosquitto.start()
			require.Eventually(t, func() bool {
				c, err := net.Dial("tcp", loopback(mqttPort))
				if err == nil {
					_ = c.Close()
				}
				return err == nil
			}, patience, 10*time.Millisecond)
		}},
	}
	for _, engine := range e.all {
		engine.start()
		t.Cleanup(engine.stop)
	}
	e.database = db.URL()
	_, err := store.Migrate(t.Context(), e.database, quiet)
	require.NoError(t, err)
	return e
}

// service is one that runs, asked at its admin listener.
type service struct {
	t    *testing.T
	name string
	url  string
}

const adminToken = "the-admin-token-of-this-test"

func (s service) get(path string) (int, string) {
	r, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.url+path, nil)
	require.NoError(s.t, err)
	r.Header.Set("Authorization", "Bearer "+adminToken)
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	require.NoError(s.t, err)
	return res.StatusCode, string(b)
}

func (s service) report() (r admin.Report) {
	code, body := s.get("/readyz")
	if code == 0 {
		return admin.Report{}
	}
	require.NoError(s.t, json.Unmarshal([]byte(body), &r))
	require.Equal(s.t, r.Ready, code == http.StatusOK, body)
	return r
}

// rows are the services and their checks as docs/health.md tells them.
func rows(t *testing.T) (rows []string) {
	t.Helper()
	b, err := os.ReadFile("../../docs/health.md")
	require.NoError(t, err)
	for _, m := range regexp.MustCompile("(?m)^\\| (\\w+) \\| `([\\w-]+)` \\|").FindAllStringSubmatch(string(b), -1) {
		rows = append(rows, m[1]+" "+m[2])
	}
	return rows
}

// breaks says which engine is stopped to make a row turn. Empty: none of them
// does, and nothing here breaks it.
var breaks = map[string]string{
	"bridge mqtt": "MQTT", "bridge commands-mqtt": "MQTT",
	"bridge kafka": "Kafka", "bridge commands-kafka": "Kafka",
	"poller kafka": "Kafka", "poller poller": "Kafka", "poller temporal": "Temporal", "poller database": "PostgreSQL",
	"worker worker": "Temporal", "worker temporal": "Temporal", "worker database": "PostgreSQL", "worker kafka": "Kafka",
	"retention database": "PostgreSQL", "retention retention": "PostgreSQL",
	"edge mqtt": "MQTT", "edge registry": "", "edge source": "",
}

// Every row of docs/health.md that an engine can turn: the engine is stopped, /readyz turns
// and names it, /healthz does not, the metric and the age of the last success
// follow; and when it is started again, the service is ready by itself.
func TestReadinessFollowsWhatServicesNeed(t *testing.T) {
	for _, row := range rows(t) {
		require.Contains(t, breaks, row, "the test does not know it")
	}
	require.Len(t, rows(t), len(breaks))

	log := testLog(t)
	e := startEngines(t, log)
	rollcall, edge := build(t, "../..", "./cmd/rollcall"), build(t, "../..", "./cmd/rollcall-edge")
	token := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(token, []byte(adminToken+"\n"), 0o600))
	capture, err := filepath.Abs("../../testdata/lan/lan.pcap")
	require.NoError(t, err)
	services := map[string]service{}
	for name, args := range map[string][]string{
		"bridge":    {rollcall, "bridge"},
		"poller":    {rollcall, "poller"},
		"worker":    {rollcall, "worker"},
		"retention": {rollcall, "retention", "--every=1s"},
		"edge":      {edge, "run", "--rae=RAE-1", "--capture=" + capture, "--speed=max", "--data-dir=" + t.TempDir()},
	} {
		addr := loopback(porttest.Port(t))
		p := &process{t: t, log: log, args: args, env: []string{
			"ROLLCALL_ADMIN_ADDR=" + addr, "ROLLCALL_ADMIN_TOKEN_FILE=" + token, "ROLLCALL_DATABASE_URL=" + e.database,
			"TEMPORAL_ADDRESS=" + e.temporal, "ROLLCALL_KAFKA_BROKERS=" + e.kafka, "ROLLCALL_MQTT_URL=" + e.mqtt,
		}}
		p.start()
		t.Cleanup(p.kill)
		services[name] = service{t, name, "http://" + addr}
	}
	allReady := func(when string) {
		t.Helper()
		for name, s := range services {
			require.Eventually(t, func() bool { return s.report().Ready }, 2*patience, 100*time.Millisecond, "%s %s: %s", name, when, explain(s))
			for row := range breaks {
				if of, check, _ := strings.Cut(row, " "); of == name {
					require.Contains(t, s.report().Checks, check, "%s has the check", name)
				}
			}
		}
	}
	allReady("at the start")
	for _, engine := range e.all {
		t.Run(engine.name, func(t *testing.T) {
			stopped := time.Now()
			engine.stop()
			for row, by := range breaks {
				name, check, _ := strings.Cut(row, " ")
				s := services[name]
				if by != engine.name {
					continue
				}
				require.Eventually(t, func() bool { st, ok := s.report().Checks[check]; return ok && !st.OK && st.Error != "" }, 2*patience, 100*time.Millisecond, "%s: %s", row, explain(s))
				st := s.report().Checks[check]
				t.Logf("%s turned after %s: %s", row, time.Since(stopped).Round(time.Second), st.Error)
				if st.LastSuccess != nil {
					require.LessOrEqual(t, *st.LastSuccess, time.Since(stopped).Seconds()+10)
				}
				code, body := s.get("/healthz")
				require.Equal(t, http.StatusOK, code, "%s: a restart would not help: %s", row, body)
				_, metrics := s.get("/metrics")
				require.Contains(t, metrics, fmt.Sprintf("rollcall_dependency_up{dependency=%q} 0\n", check))
			}
			for row, by := range breaks {
				name, check, _ := strings.Cut(row, " ")
				if by == engine.name {
					require.False(t, services[name].report().Checks[check].OK, "%s: it stays so for as long as it is away", row)
				}
			}
			started := time.Now()
			engine.start()
			allReady("after " + engine.name + " came back")
			t.Logf("all are ready %s after %s is back", time.Since(started).Round(time.Second), engine.name)
		})
	}
}

// explain says at the end of a test what the service says of itself.
type explain service

func (e explain) String() string {
	_, body := service(e).get("/readyz")
	return body
}
