// Package deploy_test checks what is deployed against the code: nothing pulls an
// image, so that it runs where there is no container engine.
package deploy_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/contrib/envconfig"
	"gopkg.in/yaml.v3"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/workflows"
)

const root = ".."

// project is docker-compose.yml with every profile on.
func project(t *testing.T) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{filepath.Join(root, "docker-compose.yml")}, cli.WithProfiles([]string{"*"}))
	require.NoError(t, err)
	p, err := options.LoadProject(t.Context())
	require.NoError(t, err)
	require.NotEmpty(t, p.Services)
	return p
}

// binaries builds what the Dockerfile builds and returns the directory.
var binaries = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "rollcall-deploy-")
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(context.Background(), "go", "build", "-o", dir, "./cmd/rollcall", "./cmd/rollcall-edge")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("%w\n%s", err, out)
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, _ := binaries(); dir != "" {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

// ours are the services that run our binaries; the value is the binary.
func ours(p *types.Project) map[string]string {
	out := map[string]string{}
	for name, s := range p.Services {
		if s.Build != nil {
			out[name] = s.Build.Target
		}
	}
	return out
}

// checkConfig runs the service's binary with these arguments, the service's
// environment and --check-config. It fails for an address that is left at its
// default: in a container that leads to the container itself.
func checkConfig(t *testing.T, s types.ServiceConfig, args []string) {
	t.Helper()
	host := func(value string) string { return value }
	for _, secret := range s.Secrets {
		path := filepath.Join(t.TempDir(), secret.Source)
		require.NoError(t, os.WriteFile(path, []byte("a secret of these tests"), 0o600))
		before := host
		host = func(value string) string {
			return strings.ReplaceAll(before(value), "/run/secrets/"+secret.Source, path)
		}
	}
	for _, v := range s.Volumes {
		if v.Type == types.VolumeTypeBind {
			before := host
			host = func(value string) string { return strings.ReplaceAll(before(value), v.Target, v.Source) }
		}
	}
	var command []string
	for _, arg := range args {
		command = append(command, host(arg))
	}
	var environment []string
	for name, value := range s.Environment {
		environment = append(environment, name+"="+host(*value))
	}
	out, err := check(t, s.Build.Target, command, environment)
	require.NoError(t, err, "%s %s: %s", s.Name, strings.Join(args, " "), out)
	require.NotContains(t, out, byDefault, "%s %s", s.Name, strings.Join(args, " "))
}

// byDefault is how --check-config tells of an address that nobody has set.
const byDefault = "by default"

// check runs a binary with --check-config.
func check(t *testing.T, binary string, args, environment []string) (string, error) {
	t.Helper()
	dir, err := binaries()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), filepath.Join(dir, binary), append(slices.Clone(args), "--check-config")...)
	cmd.Env = append([]string{"HOME=" + t.TempDir()}, environment...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Every command, flag, value and environment name that the file gives to our
// services is one that the binary takes.
func TestServicesOfOurs(t *testing.T) {
	p := project(t)
	services := ours(p)
	dockerfile, err := os.ReadFile(filepath.Join(root, "Dockerfile"))
	require.NoError(t, err)
	for _, want := range []string{"migrate", "bridge", "poller", "worker", "retention", "edge"} {
		require.Contains(t, services, want)
	}
	for name, target := range services {
		t.Run(name, func(t *testing.T) {
			s := p.Services[name]
			require.Contains(t, string(dockerfile), " AS "+target+"\n", "a stage of the Dockerfile")
			require.Contains(t, string(dockerfile), `ENTRYPOINT ["/`+target+`"]`)
			require.Empty(t, s.Entrypoint, "the image's")
			checkConfig(t, s, s.Command)
			if s.HealthCheck != nil {
				test := s.HealthCheck.Test
				require.Equal(t, []string{"CMD", "/" + target}, []string(test[:2]), "the image has no shell")
				checkConfig(t, s, test[2:])
			}
			for env := range s.Environment {
				require.True(t, strings.HasPrefix(env, "ROLLCALL_") || temporalReads(t, env), "%s is read by nothing", env)
			}
		})
	}
}

// The command line finds everything from its container too.
func TestCommandLine(t *testing.T) {
	s := project(t).Services["cli"]
	for _, args := range []string{"device list", "device command tv ping", "session progress 00000000-0000-4000-8000-000000000001", "verify", "dlq list"} {
		checkConfig(t, s, strings.Fields(args))
	}
}

// An address that is left out is told of.
func TestDefaultAddressesAreTold(t *testing.T) {
	out, err := check(t, "rollcall", []string{"worker", "--database-url=postgres://u@db/d"}, nil)
	require.NoError(t, err, out)
	for _, want := range []string{
		"by default: --admin-addr is 127.0.0.1:9403; set it or $ROLLCALL_ADMIN_ADDR\n",
		"by default: --kafka-brokers is 127.0.0.1:9092; set it or $ROLLCALL_KAFKA_BROKERS\n",
		"by default: --temporal-address is localhost:7233; set it or $TEMPORAL_ADDRESS\n",
	} {
		require.Contains(t, out, want)
	}
}

// Who opens a listener that other containers reach asks for the token, and
// Prometheus, which has it, shows it.
func TestAdminListenersAskForTheToken(t *testing.T) {
	p := project(t)
	const file = "/run/secrets/admin_token"
	for name := range ours(p) {
		s := p.Services[name]
		if s.Environment["ROLLCALL_ADMIN_ADDR"] == nil {
			continue
		}
		require.Equal(t, file, *s.Environment["ROLLCALL_ADMIN_TOKEN_FILE"], name)
		bare := s
		bare.Environment = s.Environment.Resolve(func(string) (string, bool) { return "", false })
		delete(bare.Environment, "ROLLCALL_ADMIN_TOKEN_FILE")
		var environment []string
		for name, value := range bare.Environment {
			if !strings.HasSuffix(name, "_FILE") && name != "ROLLCALL_MQTT_USERNAME" {
				environment = append(environment, name+"="+strings.ReplaceAll(*value, "/capture/", t.TempDir()+"/"))
			}
		}
		out, err := check(t, s.Build.Target, s.Command, environment)
		require.Error(t, err, name)
		require.Contains(t, out, "can be reached from other hosts", name)
	}
	require.True(t, hasSecret(p.Services["prometheus"], "admin_token"))
	var config struct {
		ScrapeConfigs []struct {
			Job           string `yaml:"job_name"`
			Authorization struct {
				Type            string
				CredentialsFile string `yaml:"credentials_file"`
			}
		} `yaml:"scrape_configs"`
	}
	b, err := os.ReadFile("prometheus/prometheus.yml")
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(b, &config))
	scraped := 0
	for _, c := range config.ScrapeConfigs {
		if strings.HasPrefix(c.Job, "rollcall-") {
			scraped++
			require.Equal(t, file, c.Authorization.CredentialsFile, c.Job)
			require.Contains(t, []string{"", "Bearer"}, c.Authorization.Type)
		}
	}
	require.Equal(t, 5, scraped)
}

// The worker's arguments and variables on Kubernetes are right, and leave no
// address at its default.
func TestKubernetesWorker(t *testing.T) {
	b, err := os.ReadFile("temporal/worker-deployment.yaml")
	require.NoError(t, err)
	type container struct {
		Args []string
		Env  []struct{ Name, Value string }
	}
	var manifest struct {
		Spec struct {
			Template struct {
				Spec struct{ Containers []container }
			}
		}
	}
	for d := yaml.NewDecoder(bytes.NewReader(b)); len(manifest.Spec.Template.Spec.Containers) == 0; {
		require.NoError(t, d.Decode(&manifest))
	}
	c := manifest.Spec.Template.Spec.Containers[0]
	token := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(token, []byte("a token of these tests"), 0o600))
	for i := range c.Args {
		c.Args[i] = strings.ReplaceAll(c.Args[i], "/etc/rollcall/admin/token", token)
	}
	environment := []string{"TEMPORAL_ADDRESS=temporal:7233", "TEMPORAL_NAMESPACE=rollcall"} // by the controller
	for _, e := range c.Env {
		if e.Name == "ROLLCALL_DATABASE_URL" {
			e.Value = "postgres://u@db/d" // from a secret
		}
		environment = append(environment, e.Name+"="+e.Value)
	}
	out, err := check(t, "rollcall", c.Args, environment)
	require.NoError(t, err, out)
	require.NotContains(t, out, byDefault)
}

// temporalReads reports whether the Temporal SDK's configuration reads env.
func temporalReads(t *testing.T, env string) bool {
	t.Helper()
	var r recorder
	_, err := envconfig.LoadClientOptions(envconfig.LoadClientOptionsRequest{EnvLookup: &r})
	require.NoError(t, err)
	return slices.Contains(r.asked, env)
}

type recorder struct{ asked []string }

func (*recorder) Environ() []string { return nil }

func (r *recorder) LookupEnv(name string) (string, bool) {
	r.asked = append(r.asked, name)
	return "", false
}

// A service that another waits for to be healthy has a health check, and one
// that another waits for to end does end.
func TestDependencies(t *testing.T) {
	p := project(t)
	for name, s := range p.Services {
		for on, d := range s.DependsOn {
			dependency := p.Services[on]
			switch d.Condition {
			case types.ServiceConditionHealthy:
				require.NotNil(t, dependency.HealthCheck, "%s waits for the health of %s", name, on)
			case types.ServiceConditionCompletedSuccessfully:
				require.Equal(t, types.RestartPolicyNo, dependency.Restart, "%s waits for the end of %s", name, on)
			default:
				require.Fail(t, "a condition that says nothing", "%s on %s: %s", name, on, d.Condition)
			}
		}
		if s.Restart != types.RestartPolicyNo {
			require.NotNil(t, s.HealthCheck, "%s runs for ever and has no health check", name)
		}
	}
}

var version = regexp.MustCompile(`^v?\d+\.\d+(\.\d+)?(-\w+)?$`)

func TestImagesArePinned(t *testing.T) {
	for name, s := range project(t).Services {
		image, tag, _ := strings.Cut(s.Image, ":")
		if s.Build != nil {
			require.Equal(t, s.Build.Target+":local", s.Image)
			continue
		}
		require.Regexp(t, version, tag, "%s: image %s", name, image)
	}
	dockerfile, err := os.ReadFile(filepath.Join(root, "Dockerfile"))
	require.NoError(t, err)
	require.Contains(t, string(dockerfile), "\nARG GO_IMAGE=")
	for line := range strings.Lines(string(dockerfile)) {
		if image, ok := strings.CutPrefix(line, "ARG GO_IMAGE="); ok {
			_, tag, _ := strings.Cut(strings.TrimSpace(image), ":")
			require.Regexp(t, version, tag)
		}
		if from, ok := strings.CutPrefix(line, "FROM "); ok {
			require.Contains(t, []string{"${GO_IMAGE}", "scratch", "base"}, strings.Fields(from)[0])
		}
	}
}

func TestNothingIsPrivileged(t *testing.T) {
	for name, s := range project(t).Services {
		require.False(t, s.Privileged, name)
		require.Equal(t, []string{"ALL"}, s.CapDrop, name)
		require.Contains(t, s.SecurityOpt, "no-new-privileges:true", name)
		require.Empty(t, s.NetworkMode, name)
		require.Empty(t, s.Pid, name)
		require.Empty(t, s.Ipc, name)
		require.Empty(t, s.Devices, name)
		if name == "cockroachdb-certs" {
			require.Equal(t, types.RestartPolicyNo, s.Restart, "root gives the keys away, and ends")
			continue
		}
		require.Empty(t, s.CapAdd, name)
		require.Regexp(t, `^[1-9]\d*:[1-9]\d*$`, s.User, "%s runs as root", name)
		if s.Build != nil {
			require.True(t, s.ReadOnly, name)
		}
	}
}

func TestFilesAndVolumes(t *testing.T) {
	p := project(t)
	used := map[string]bool{}
	for name, s := range p.Services {
		for _, v := range s.Volumes {
			if v.Type == types.VolumeTypeVolume {
				used[v.Source] = true
				require.Contains(t, p.Volumes, v.Source, name)
				continue
			}
			require.True(t, v.ReadOnly, "%s mounts %s writable", name, v.Source)
			info, err := os.Stat(v.Source)
			require.NoError(t, err, name)
			require.True(t, info.Mode().IsRegular(), v.Source)
		}
		for _, f := range scriptOf(s) {
			require.Contains(t, mountTargets(s), f, "%s runs a script that is not mounted", name)
		}
	}
	for name := range p.Volumes {
		require.True(t, used[name], "volume %s is used by nothing", name)
	}
}

// scriptOf is the script that an entrypoint of a shell runs.
func scriptOf(s types.ServiceConfig) []string {
	if len(s.Entrypoint) == 2 && s.Entrypoint[0] == "/bin/sh" {
		return s.Entrypoint[1:]
	}
	return nil
}

func mountTargets(s types.ServiceConfig) []string {
	var out []string
	for _, v := range s.Volumes {
		out = append(out, v.Target)
	}
	return out
}

// deploy/secrets.sh makes the secrets that the file mounts, and no others; a
// second run changes none.
func TestSecrets(t *testing.T) {
	p := project(t)
	dir := t.TempDir()
	made := map[string]string{}
	for range 2 {
		out, err := exec.CommandContext(t.Context(), "sh", "secrets.sh", dir).CombinedOutput()
		require.NoError(t, err, string(out))
		for name, secret := range p.Secrets {
			require.Equal(t, name, filepath.Base(secret.File))
			require.Equal(t, filepath.Join("deploy", "secrets"), relative(t, p.WorkingDir, filepath.Dir(secret.File)))
			b, err := os.ReadFile(filepath.Join(dir, name))
			require.NoError(t, err)
			require.Greater(t, len(bytes.TrimSpace(b)), 30)
			if before, ok := made[name]; ok {
				require.Equal(t, before, string(b))
			}
			made[name] = string(b)
		}
	}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, len(p.Secrets))
	used := map[string]bool{}
	for name, s := range p.Services {
		for env, value := range s.Environment {
			for _, file := range regexp.MustCompile(`/run/secrets/(\w+)`).FindAllStringSubmatch(*value, -1) {
				require.True(t, hasSecret(s, file[1]), "%s: %s names a secret that is not mounted", name, env)
			}
		}
		for _, secret := range s.Secrets {
			require.Contains(t, p.Secrets, secret.Source)
			used[secret.Source] = true
		}
	}
	require.Len(t, used, len(p.Secrets), "a secret that nobody reads")
}

func hasSecret(s types.ServiceConfig, name string) bool {
	return slices.ContainsFunc(s.Secrets, func(c types.ServiceSecretConfig) bool { return c.Source == name })
}

func relative(t *testing.T, base, path string) string {
	t.Helper()
	rel, err := filepath.Rel(base, path)
	require.NoError(t, err)
	return rel
}

// listens is what each service listens at, from its own configuration.
func listens(t *testing.T, p *types.Project) map[string][]string {
	t.Helper()
	out := map[string][]string{
		"temporal":    {"7233"}, // the server's built-in configuration
		"temporal-ui": {"8080"},
		"temporal-db": {"5432"},
		"prometheus":  {"9090"},
	}
	ports := func(name, text, pattern string) {
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
			out[name] = append(out[name], m[1])
		}
		require.NotEmpty(t, out[name], name)
	}
	conf, err := os.ReadFile("mosquitto/mosquitto.conf")
	require.NoError(t, err)
	ports("mosquitto", string(conf), `(?m)^listener (\d+)`)
	ports("grafana", *p.Services["grafana"].Environment["GF_SERVER_HTTP_PORT"], `^(\d+)$`)
	ports("kafka", *p.Services["kafka"].Environment["KAFKA_LISTENERS"], `://:(\d+)`)
	ports("cockroachdb", strings.Join(p.Services["cockroachdb"].Command, " "), `-addr=:(\d+)`)
	ports("temporal", *p.Services["temporal"].Environment["PROMETHEUS_ENDPOINT"], `:(\d+)$`)
	for name := range ours(p) {
		if addr := p.Services[name].Environment["ROLLCALL_ADMIN_ADDR"]; addr != nil {
			ports(name, *addr, `:(\d+)$`)
		}
	}
	return out
}

var address = regexp.MustCompile(`\b([a-z][a-z-]+):(\d{4,5})\b`)

// Whatever address one service has of another, the other listens there; and
// what is published is published to this machine alone.
func TestPorts(t *testing.T) {
	p := project(t)
	listening := listens(t, p)
	found := map[string]bool{}
	meets := func(who, text string) {
		for _, m := range address.FindAllStringSubmatch(text, -1) {
			if m[1] == "localhost" {
				continue
			}
			found[m[0]] = true
			require.Contains(t, p.Services, m[1], "%s: %s", who, text)
			require.Contains(t, listening[m[1]], m[2], "%s has the address %s", who, m[0])
		}
	}
	taken := map[string]string{}
	for name, s := range p.Services {
		for env, value := range s.Environment {
			if !strings.HasPrefix(env, "KAFKA_CONTROLLER_") {
				meets(name+" "+env, *value)
			}
		}
		meets(name, strings.Join(s.Command, " "))
		for _, port := range s.Ports {
			require.Equal(t, "127.0.0.1", port.HostIP, name)
			require.Contains(t, listening[name], fmt.Sprint(port.Target), name)
			require.Empty(t, taken[port.Published], "%s and %s publish port %s", name, taken[port.Published], port.Published)
			taken[port.Published] = name
		}
	}

	var prometheus struct {
		ScrapeConfigs []struct {
			StaticConfigs []struct{ Targets []string } `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
	}
	b, err := os.ReadFile("prometheus/prometheus.yml")
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(b, &prometheus))
	scraped := map[string]bool{}
	for _, c := range prometheus.ScrapeConfigs {
		for _, target := range c.StaticConfigs[0].Targets {
			meets("prometheus.yml", target)
			host, _, err := net.SplitHostPort(target)
			require.NoError(t, err)
			scraped[host] = true
		}
	}
	for name := range ours(p) {
		if p.Services[name].Restart != types.RestartPolicyNo {
			require.True(t, scraped[name], "prometheus.yml does not scrape %s", name)
		}
	}
	require.Contains(t, found, "kafka:19092", "the pattern finds no address: %q", found)
	require.Contains(t, found, "temporal:7233")
}

// Prometheus reads the rules where they are mounted, Grafana the dashboard, and
// its data source is the Prometheus that is there.
func TestMetricsStack(t *testing.T) {
	p := project(t)
	mounted := func(service, target string) string {
		for _, v := range p.Services[service].Volumes {
			if v.Target == target {
				return relative(t, p.WorkingDir, v.Source)
			}
		}
		require.Fail(t, "nothing is mounted there", "%s: %s", service, target)
		return ""
	}
	read := func(path string, into any) {
		b, err := os.ReadFile(filepath.Join(root, path))
		require.NoError(t, err)
		require.NoError(t, yaml.Unmarshal(b, into))
	}
	var prometheus struct {
		RuleFiles []string `yaml:"rule_files"`
	}
	read("deploy/prometheus/prometheus.yml", &prometheus)
	require.Equal(t, []string{"/etc/prometheus/rules/*.yml"}, prometheus.RuleFiles)
	require.Equal(t, "deploy/prometheus/rules/rollcall.yml", mounted("prometheus", "/etc/prometheus/rules/rollcall.yml"))

	var sources struct {
		Datasources []struct{ UID, Type, URL string }
	}
	read(mounted("grafana", "/etc/grafana/provisioning/datasources/rollcall.yml"), &sources)
	require.Len(t, sources.Datasources, 1)
	require.Equal(t, "prometheus", sources.Datasources[0].Type)
	require.Equal(t, "http://prometheus:"+listens(t, p)["prometheus"][0], sources.Datasources[0].URL)

	var dashboards struct {
		Providers []struct{ Options struct{ Path string } }
	}
	read(mounted("grafana", "/etc/grafana/provisioning/dashboards/rollcall.yml"), &dashboards)
	file := path.Join(dashboards.Providers[0].Options.Path, "rollcall.json")
	require.Equal(t, "deploy/grafana/dashboards/rollcall.json", mounted("grafana", file))
	require.Equal(t, file, *p.Services["grafana"].Environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])

	// The rules' jobs are the scrape configuration's.
	b, err := os.ReadFile("prometheus/prometheus.yml")
	require.NoError(t, err)
	for name := range ours(p) {
		if p.Services[name].Restart != types.RestartPolicyNo {
			require.Contains(t, string(b), "job_name: rollcall-"+name+"\n")
		}
	}
}

// The scripts create what the code uses.
func TestNames(t *testing.T) {
	read := func(path string) string {
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		return string(b)
	}
	var topics []string
	for _, m := range regexp.MustCompile(`(?m)^create (\S+)`).FindAllStringSubmatch(read("kafka/topics.sh"), -1) {
		topics = append(topics, m[1])
	}
	require.ElementsMatch(t, []string{device.KafkaEvents, device.KafkaDeadLetters, device.KafkaCommands, device.KafkaReplies}, topics)

	attributes := regexp.MustCompile(`for name in (.*); do`).FindStringSubmatch(read("temporal/namespace.sh"))
	require.ElementsMatch(t, workflows.SearchAttributes(), strings.Fields(attributes[1]))

	require.Contains(t, read("temporal/worker-deployment.yaml"),
		"temporalNamespace: "+*project(t).Services["worker"].Environment["TEMPORAL_NAMESPACE"]+" ")

	acl := read("mosquitto/acl")
	for _, filter := range []string{device.FilterEvents, device.FilterReplies, device.FilterPresence} {
		require.Contains(t, acl, "topic read "+filter+"\n")
	}
	for _, script := range []string{"secrets.sh", "kafka/topics.sh", "mosquitto/users.sh", "cockroach/certs.sh", "temporal/schema.sh", "temporal/namespace.sh", "temporal/server.sh"} {
		out, err := exec.CommandContext(t.Context(), "sh", "-n", script).CombinedOutput()
		require.NoError(t, err, string(out))
	}
}

// Retention keeps what Kafka could replay: it is told of at least as long as the
// events' topic is made to keep.
func TestRetentionKnowsKafkas(t *testing.T) {
	topics, err := os.ReadFile("kafka/topics.sh")
	require.NoError(t, err)
	kept := regexp.MustCompile(`(?m)^create ` + regexp.QuoteMeta(device.KafkaEvents) + ` \d+ (\d+)$`).FindSubmatch(topics)
	require.NotNil(t, kept)
	days, err := strconv.Atoi(string(kept[1]))
	require.NoError(t, err)
	told, ok := strings.CutSuffix(*project(t).Services["retention"].Environment["ROLLCALL_KAFKA_RETENTION"], "d")
	require.True(t, ok, "in days, as in topics.sh")
	n, err := strconv.Atoi(told)
	require.NoError(t, err)
	require.GreaterOrEqual(t, n, days)
}

// .dockerignore lets every package through that the binaries are built from.
func TestDockerignore(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(root, ".dockerignore"))
	require.NoError(t, err)
	var allowed []string
	for line := range strings.Lines(string(b)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "!"); ok {
			allowed = append(allowed, path)
		}
	}
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{if .Module}}{{if .Module.Main}}{{.ImportPath}}{{end}}{{end}}", "./cmd/rollcall", "./cmd/rollcall-edge")
	cmd.Dir = root
	out, err := cmd.Output()
	require.NoError(t, err)
	for _, path := range strings.Fields(string(out)) {
		dir := strings.TrimPrefix(path, "github.com/rollcall-platform/rollcall/")
		require.True(t, slices.ContainsFunc(allowed, func(a string) bool { return dir == a || strings.HasPrefix(dir, a+"/") }), "%s is kept out of the image's build", dir)
	}
}
