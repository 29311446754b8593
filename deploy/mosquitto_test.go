package deploy_test

import (
	"context"
	"errors"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/porttest"
)

// patience only bounds a failure.
const patience = time.Minute

// broker runs an installed Mosquitto on the configuration that is deployed, with
// its paths and port replaced, and the users that deploy/mosquitto/users.sh
// makes. It returns the broker's address.
func broker(t *testing.T, users map[string]string) string {
	t.Helper()
	mosquitto := find(t, "mosquitto")
	passwd := find(t, "mosquitto_passwd")
	// Mosquitto drops root, and then must reach its files: not under t.TempDir,
	// which only this user may enter.
	dir, err := os.MkdirTemp("", "rollcall-mosquitto-")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })

	script, err := os.ReadFile("mosquitto/users.sh")
	require.NoError(t, err)
	text := strings.ReplaceAll(string(script), "/mosquitto/data", dir)
	args := []string{"-c", text, "users.sh"}
	for name, password := range users {
		file := filepath.Join(t.TempDir(), name)
		require.NoError(t, os.WriteFile(file, []byte(password+"\n"), 0o600))
		args = append(args, name+"="+file)
	}
	job := exec.CommandContext(t.Context(), "sh", args...)
	job.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":"+filepath.Dir(passwd))
	out, err := job.CombinedOutput()
	require.NoError(t, err, string(out))

	addr := porttest.Addr(t)
	_, port, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	conf, err := os.ReadFile("mosquitto/mosquitto.conf")
	require.NoError(t, err)
	acl, err := filepath.Abs("mosquitto/acl")
	require.NoError(t, err)
	b, err := os.ReadFile(acl)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "acl"), b, 0o644))
	text = strings.NewReplacer(
		"listener 1883 0.0.0.0", "listener "+port+" 127.0.0.1",
		"/mosquitto/data", dir,
		"/mosquitto/config/acl", filepath.Join(dir, "acl"),
	).Replace(string(conf))
	path := filepath.Join(dir, "mosquitto.conf")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))

	cmd := exec.Command(mosquitto, "-c", path)
	if u, err := user.Lookup("mosquitto"); err == nil && os.Geteuid() == 0 {
		uid, err := strconv.Atoi(u.Uid)
		require.NoError(t, err)
		gid, err := strconv.Atoi(u.Gid)
		require.NoError(t, err)
		for _, p := range []string{dir, filepath.Join(dir, "passwd")} {
			require.NoError(t, os.Chown(p, uid, gid))
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	}
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	require.Eventually(t, func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	}, patience, 20*time.Millisecond)
	return addr
}

func find(t *testing.T, name string) string {
	t.Helper()
	for _, path := range []string{name, "/usr/sbin/" + name, "/usr/local/sbin/" + name} {
		if p, err := exec.LookPath(path); err == nil {
			return p
		}
	}
	t.Skipf("needs %s: apt-get install mosquitto", name)
	return ""
}

// join connects as name. Messages that come are sent to the channel.
func join(t *testing.T, addr, name, password string) (*paho.Client, <-chan *paho.Publish, error) {
	t.Helper()
	conn, err := net.Dial("tcp", (&url.URL{Host: addr}).Host)
	require.NoError(t, err)
	got := make(chan *paho.Publish, 16)
	c := paho.NewClient(paho.ClientConfig{Conn: conn, PacketTimeout: patience, OnPublishReceived: []func(paho.PublishReceived) (bool, error){
		func(p paho.PublishReceived) (bool, error) { got <- p.Packet; return true, nil },
	}})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ack, err := c.Connect(ctx, &paho.Connect{ClientID: name, CleanStart: true, KeepAlive: 30, Username: name, UsernameFlag: true, Password: []byte(password), PasswordFlag: true})
	if err == nil && ack.ReasonCode != 0 {
		err = errors.New("refused")
	}
	if err == nil {
		t.Cleanup(func() { _ = c.Disconnect(&paho.Disconnect{}) })
	}
	return c, got, err
}

// The ACL that is deployed lets a RAE speak for itself alone, and nobody in
// without a password.
func TestBrokerKeepsRAEsApart(t *testing.T) {
	addr := broker(t, map[string]string{"bridge": "b-secret", "RAE-1": "one", "RAE-2": "two"})
	const session = "6a3c9f1e-3b1d-4b52-9d3e-0f6a3a1d2c77"
	ctx := t.Context()

	_, _, err := join(t, addr, "RAE-1", "wrong")
	require.Error(t, err)

	bridge, events, err := join(t, addr, "bridge", "b-secret")
	require.NoError(t, err)
	_, err = bridge.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{
		{Topic: device.FilterEvents, QoS: 1}, {Topic: device.FilterReplies, QoS: 1}, {Topic: device.FilterPresence, QoS: 1},
	}})
	require.NoError(t, err)

	one, _, err := join(t, addr, "RAE-1", "one")
	require.NoError(t, err)
	publish := func(c *paho.Client, topic string, err error, payload string) {
		t.Helper()
		require.NoError(t, err)
		r, err := c.Publish(ctx, &paho.Publish{Topic: topic, QoS: 1, Payload: []byte(payload)})
		if payload == "forbidden" {
			require.Error(t, err)
			require.Equal(t, byte(packets.PubackNotAuthorized), r.ReasonCode, topic)
			return
		}
		require.NoError(t, err, topic)
	}
	topic := func(rae, kind string) (string, error) { return device.SessionTopic(rae, session, kind) }

	foreign, err := topic("RAE-2", device.KindEvents)
	publish(one, foreign, err, "forbidden")
	presence, err := device.PresenceTopic("RAE-2")
	// On a new connection: Mosquitto 2.0.11 answers the first forbidden publish
	// of a connection and leaves the next one without a PUBACK.
	two, _, joinErr := join(t, addr, "RAE-1", "one")
	require.NoError(t, joinErr)
	publish(two, presence, err, "forbidden")
	one, commands, err := join(t, addr, "RAE-1", "one")
	require.NoError(t, err)

	for _, kind := range []string{device.KindEvents, device.KindReplies} {
		own, err := topic("RAE-1", kind)
		publish(one, own, err, "of RAE-1")
		require.Equal(t, own, receive(t, events).Topic, "what was forbidden did not come before it")
	}
	own, err := device.PresenceTopic("RAE-1")
	publish(one, own, err, "of RAE-1")
	require.Equal(t, own, receive(t, events).Topic)

	mine, err := topic("RAE-1", device.KindCommands)
	require.NoError(t, err)
	_, err = one.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{
		{Topic: strings.Replace(mine, session, "+", 1), QoS: 1}, {Topic: strings.Replace(mine, "RAE-1", "RAE-2", 1), QoS: 1},
	}})
	_ = err // Mosquitto 2.0 checks reads when it delivers
	theirs, err := topic("RAE-2", device.KindCommands)
	publish(bridge, theirs, err, "for RAE-2")
	publish(bridge, mine, nil, "for RAE-1")
	require.Equal(t, "for RAE-1", string(receive(t, commands).Payload), "a RAE hears no other's commands")
}

func receive(t *testing.T, messages <-chan *paho.Publish) *paho.Publish {
	t.Helper()
	select {
	case m := <-messages:
		return m
	case <-time.After(patience):
		require.Fail(t, "no message came")
		return nil
	}
}
