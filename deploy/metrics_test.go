package deploy_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"gopkg.in/yaml.v3"

	"github.com/rollcall-platform/rollcall/edge"
	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/groupcommit"
	"github.com/rollcall-platform/rollcall/internal/health"
	"github.com/rollcall-platform/rollcall/internal/kafka"
	"github.com/rollcall-platform/rollcall/internal/mqtt"
	"github.com/rollcall-platform/rollcall/internal/request"
	"github.com/rollcall-platform/rollcall/internal/retention"
	"github.com/rollcall-platform/rollcall/internal/sdkmetrics"
	"github.com/rollcall-platform/rollcall/internal/store"
	"github.com/rollcall-platform/rollcall/workers/bridge"
	"github.com/rollcall-platform/rollcall/workers/poller"
	"github.com/rollcall-platform/rollcall/workers/session"
)

// metric is one that a component has registered.
type metric struct {
	kind   string // counter, gauge, histogram, or empty: a collector of its own
	labels []string
}

// registered records what components register: a vector without values is in
// no gathering, and yet it is there.
type registered map[string]metric

var description = regexp.MustCompile(`fqName: "([^"]+)".*variableLabels: \{([^}]*)\}`)

func (r registered) Register(c prometheus.Collector) error {
	kind := ""
	switch c.(type) {
	case *prometheus.HistogramVec, prometheus.Histogram:
		kind = "histogram"
	case *prometheus.GaugeVec, prometheus.Gauge:
		kind = "gauge"
	case *prometheus.CounterVec, prometheus.Counter:
		kind = "counter"
	case prometheus.GaugeFunc: // every metric has its methods: it is asked last
		kind = "gauge"
	}
	ch := make(chan *prometheus.Desc, 100)
	c.Describe(ch)
	close(ch)
	for d := range ch {
		m := description.FindStringSubmatch(d.String())
		if m == nil {
			continue
		}
		labels := strings.FieldsFunc(m[2], func(r rune) bool { return r == ',' || r == ' ' })
		r[m[1]] = metric{kind, labels}
	}
	return nil
}

func (r registered) MustRegister(cs ...prometheus.Collector) {
	for _, c := range cs {
		_ = r.Register(c)
	}
}

func (registered) Unregister(prometheus.Collector) bool { return true }

type stubs struct{}

func (stubs) SignalWithStartWorkflow(context.Context, string, string, any, client.StartWorkflowOptions, any, ...any) (client.WorkflowRun, error) {
	return nil, nil
}

func (stubs) Positions(context.Context, []string) (map[string][]device.Position, error) {
	return nil, nil
}

func (stubs) Load(context.Context, string) (store.Stored, error) {
	return store.Stored{}, nil
}

func (stubs) Apply(context.Context, store.Update) error { return nil }

type groups struct{}

func (groups) Apply(context.Context, []store.Update) error { return nil }

func (stubs) Expire(context.Context, store.Horizons, int) (store.Expired, error) { return nil, nil }

// components builds every component that has metrics, as the commands do, and
// returns what they registered.
func components(t *testing.T) registered {
	t.Helper()
	r := registered{}
	quiet := slog.New(slog.DiscardHandler)
	broker := kafka.Options{Brokers: []string{"127.0.0.1:1"}}

	_, err := poller.New(poller.Options{Kafka: broker, Temporal: stubs{}, Acks: stubs{}, Registerer: r, Logger: quiet})
	require.NoError(t, err)

	forwarder, err := bridge.NewForwarder(bridge.ForwarderOptions{Kafka: broker, Registerer: r, Logger: quiet})
	require.NoError(t, err)
	t.Cleanup(func() { _ = forwarder.Close(context.WithoutCancel(t.Context())) })
	_, err = bridge.NewDownlink(bridge.DownlinkOptions{Kafka: broker, Publisher: &bridge.Client{}, Registerer: r, Logger: quiet})
	require.NoError(t, err)
	commands, err := request.NewSender(broker, "", r)
	require.NoError(t, err)
	t.Cleanup(commands.Close)
	_, err = bridge.NewSubscriber(bridge.SubscriberOptions{Broker: mqtt.Broker{URL: "mqtt://127.0.0.1:1"}, Forwarder: forwarder, Registerer: r, Logger: quiet})
	require.NoError(t, err)

	db, err := store.Open(t.Context(), store.Options{URL: "postgres://nobody@127.0.0.1:1/none", Registerer: r})
	require.NoError(t, err)
	t.Cleanup(db.Close)
	_, err = groupcommit.New(groupcommit.Options{Store: groups{}, Registerer: r})
	require.NoError(t, err)
	_, err = retention.New(retention.Options{Store: stubs{}, Registerer: r})
	require.NoError(t, err)
	temporal, err := client.NewLazyClient(client.Options{})
	require.NoError(t, err)
	t.Cleanup(temporal.Close)
	_, err = session.New(session.Options{Client: temporal, Store: db, Registerer: r, Logger: quiet}) // its activities' too
	require.NoError(t, err)

	box, err := edge.New(edge.Options{
		RAE: "RAE-1", DataDir: t.TempDir(), Logger: quiet, Registerer: r,
		Capture: filepath.Join(root, "testdata", "lan", "lan.pcap"), Broker: mqtt.Broker{URL: "mqtt://127.0.0.1:1"},
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = box.Close() })
	// An interface, which only a real one has, is probed; this is its metric.
	r["rollcall_edge_probes_total"] = metric{"counter", []string{"result"}}
	require.Contains(t, source(t, "edge/probe/probe.go"), `"rollcall_edge_probes_total"`)

	r.MustRegister(health.NewSet()) // the admin listener's
	// The workflows write theirs through the SDK.
	_, err = sdkmetrics.New(r)
	require.NoError(t, err)
	counters := regexp.MustCompile(`(metric\w+)\s+= "(rollcall_session_\w+)"`).FindAllStringSubmatch(source(t, "workflows/metrics.go"), -1)
	require.NotEmpty(t, counters)
	for _, c := range counters {
		r[c[2]+"_total"] = metric{"counter", tagsOf(t, c[1])}
	}
	return r
}

// tagsOf are the labels that the workflows give the counter of this constant.
func tagsOf(t *testing.T, constant string) (tags []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "workflows", "*.go"))
	require.NoError(t, err)
	call := regexp.MustCompile(`\.count\([\w.]+, ` + constant + `, "(\w+)"`)
	for _, file := range files {
		b, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, c := range call.FindAllStringSubmatch(string(b), -1) {
			tags = append(tags, c[1])
		}
	}
	slices.Sort(tags)
	return slices.Compact(tags)
}

func source(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, path))
	require.NoError(t, err)
	return string(b)
}

// sdkMetrics are those of the Temporal SDK, from its source: they are in a
// package that only it may import.
func sdkMetrics(t *testing.T) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "go.temporal.io/sdk")
	cmd.Dir = root
	dir, err := cmd.Output()
	require.NoError(t, err)
	b, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "internal", "common", "metrics", "constants.go"))
	require.NoError(t, err)
	var names []string
	for _, m := range regexp.MustCompile(`TemporalMetricsPrefix \+ "(\w+)"`).FindAllStringSubmatch(string(b), -1) {
		names = append(names, "temporal_"+m[1])
	}
	require.NotEmpty(t, names)
	return names
}

// Parts of PromQL: names of ours and their selectors, and what is grouped by.
var (
	usedName  = regexp.MustCompile(`\b(?:rollcall|temporal)_\w+\b`)
	selector  = regexp.MustCompile(`\b(rollcall_\w+)\{([^}]*)\}`)
	matcher   = regexp.MustCompile(`(\w+)\s*(?:=~|!~|!=|=)`)
	grouping  = regexp.MustCompile(`by \(([^)]*)\) \((?:\w+\()*(rollcall_\w+)`)
	everybody = []string{"job", "instance"} // what Prometheus adds
)

// checkExpr fails when the expression uses a metric, or a label of one, that no
// component has.
func checkExpr(t *testing.T, have registered, sdk []string, expr string) {
	t.Helper()
	base := func(name string) metric {
		for _, suffix := range []string{"", "_bucket", "_sum", "_count"} {
			short, ok := strings.CutSuffix(name, suffix)
			if m, known := have[short]; ok && known {
				require.Equal(t, suffix != "", m.kind == "histogram", "%s: %s is a %s", expr, name, m.kind)
				return m
			}
		}
		require.Fail(t, "no component has this metric", "%s in %s", name, expr)
		return metric{}
	}
	for _, name := range usedName.FindAllString(expr, -1) {
		if strings.HasPrefix(name, "temporal_") {
			plain := regexp.MustCompile(`(_total|_seconds_bucket|_seconds_sum|_seconds_count)$`).ReplaceAllString(name, "")
			require.Contains(t, sdk, plain, expr)
			continue
		}
		base(name)
	}
	hasLabels := func(name string, labels []string) {
		allowed := slices.Concat(base(name).labels, everybody)
		if strings.HasSuffix(name, "_bucket") {
			allowed = append(allowed, "le")
		}
		for _, label := range labels {
			require.Contains(t, allowed, label, "%s has no such label: %s", name, expr)
		}
	}
	for _, m := range selector.FindAllStringSubmatch(expr, -1) {
		for _, label := range matcher.FindAllStringSubmatch(m[2], -1) {
			hasLabels(m[1], label[1:])
		}
	}
	for _, m := range grouping.FindAllStringSubmatch(expr, -1) {
		hasLabels(m[2], strings.FieldsFunc(m[1], func(r rune) bool { return r == ',' || r == ' ' }))
	}
}

type panel struct {
	Title, Description, Type string
	Targets                  []struct{ Expr string }
}

func dashboard(t *testing.T) []panel {
	t.Helper()
	var d struct{ Panels []panel }
	require.NoError(t, json.Unmarshal([]byte(source(t, "deploy/grafana/dashboards/rollcall.json")), &d))
	require.NotEmpty(t, d.Panels)
	return d.Panels
}

func TestDashboardUsesMetricsThatExist(t *testing.T) {
	have, sdk := components(t), sdkMetrics(t)
	var titles []string
	for _, p := range dashboard(t) {
		titles = append(titles, p.Title)
		if p.Type == "row" {
			continue
		}
		require.NotEmpty(t, p.Description, p.Title)
		require.NotEmpty(t, p.Targets, p.Title)
		for _, target := range p.Targets {
			checkExpr(t, have, sdk, target.Expr)
		}
	}
	for _, want := range []string{"Fetch calls", "Records per fetch", "Max lag", "Commit rate", "Commit latency"} {
		require.Contains(t, titles, want)
	}
}

type rule struct {
	Alert, Expr string
	Labels      map[string]string
	Annotations map[string]string
}

func rules(t *testing.T) []rule {
	t.Helper()
	var file struct{ Groups []struct{ Rules []rule } }
	require.NoError(t, yaml.Unmarshal([]byte(source(t, "deploy/prometheus/rules/rollcall.yml")), &file))
	var all []rule
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	require.NotEmpty(t, all)
	return all
}

// Every alert uses metrics that exist, says how bad it is, has a test, and a
// section in the runbook; and the runbook has no section of an alert that is
// gone.
func TestAlerts(t *testing.T) {
	have, sdk := components(t), sdkMetrics(t)
	runbook := source(t, "docs/operations.md")
	tests := source(t, "deploy/prometheus/tests/rollcall.yml")
	var names []string
	for _, r := range rules(t) {
		names = append(names, r.Alert)
		checkExpr(t, have, sdk, r.Expr)
		require.Contains(t, []string{"warning", "critical"}, r.Labels["severity"], r.Alert)
		require.NotEmpty(t, r.Annotations["summary"], r.Alert)
		require.Equal(t, "docs/operations.md#"+strings.ToLower(r.Alert), r.Annotations["runbook"])
		require.Contains(t, tests, "alertname: "+r.Alert+"\n", "no test fires it")
	}
	var sections []string
	for _, m := range regexp.MustCompile(`(?m)^#+ (Rollcall[A-Z]\w+)$`).FindAllStringSubmatch(runbook, -1) {
		sections = append(sections, m[1])
	}
	require.ElementsMatch(t, names, sections)
}

func TestAlertsFire(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("needs promtool (Debian: apt-get install prometheus)")
	}
	for _, args := range [][]string{
		{"check", "config", "--syntax-only", "prometheus/prometheus.yml"},
		{"check", "rules", "prometheus/rules/rollcall.yml"},
		{"test", "rules", "prometheus/tests/rollcall.yml"},
	} {
		out, err := exec.CommandContext(t.Context(), promtool, args...).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
}

// docs/metrics.md lists what the components have, all of it and nothing else.
func TestMetricsAreDocumented(t *testing.T) {
	have := components(t)
	prefix, documented := "", map[string]metric{}
	begins := regexp.MustCompile("All begin with `(\\w+)`")
	row := regexp.MustCompile("^\\| `(\\w+)` \\| (\\w+) \\|([^|]*)\\|")
	for line := range strings.Lines(source(t, "docs/metrics.md")) {
		if m := begins.FindStringSubmatch(line); m != nil {
			prefix = m[1]
		}
		if m := row.FindStringSubmatch(line); m != nil {
			var labels []string
			for _, l := range regexp.MustCompile("`(\\w+)`").FindAllStringSubmatch(m[3], -1) {
				labels = append(labels, l[1])
			}
			documented[prefix+m[1]] = metric{m[2], labels}
		}
	}
	for name, m := range have {
		if strings.Contains(name, "_kafka_") { // the client's own, told of as such
			continue
		}
		require.Contains(t, documented, name, "docs/metrics.md does not tell of it")
		require.ElementsMatch(t, m.labels, documented[name].labels, name)
		if m.kind != "" {
			require.Equal(t, m.kind, documented[name].kind, name)
		}
	}
	for name := range documented {
		require.Contains(t, have, name, "docs/metrics.md tells of it, and nothing has it")
	}
}
