package edge_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/edge"
	"github.com/rollcall-platform/rollcall/internal/device"
)

// insideNamespace says that the test runs in a network namespace of its own.
const insideNamespace = "ROLLCALL_TEST_NAMESPACE"

// TestLiveLAN runs an edge as the router of a real LAN: a veth pair, dnsmasq as
// DHCP server and udhcpc as a device in a namespace of its own.
func TestLiveLAN(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root for network namespaces")
	}
	for _, name := range []string{"unshare", "nsenter", "ip", "dnsmasq", "udhcpc"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("no %s: apt-get install util-linux iproute2 dnsmasq-base udhcpc", name)
		}
	}
	if os.Getenv(insideNamespace) == "" {
		again := exec.Command("unshare", "-n", os.Args[0], "-test.run=^TestLiveLAN$", "-test.v")
		again.Env = append(os.Environ(), insideNamespace+"=1")
		out, err := again.CombinedOutput()
		require.NoError(t, err, string(out))
		t.Log(string(out))
		return
	}
	lan := newLAN(t)
	s := startSink(t)
	e, err := edge.New(options(t.TempDir(), s.addr, func(o *edge.Options) {
		o.Capture, o.ExitAtEnd, o.Interface = "", false, "rc-lan"
		o.ProbeInterval, o.OfflineAfter = 300*time.Millisecond, 1500*time.Millisecond
	}))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()

	begin := time.Now()
	lan.join("kitchen-tv")
	has := func(status string) func() bool {
		return func() bool {
			d := e.Devices()
			return len(d) == 1 && d[0].Status == status && d[0].Attributes[device.AttrIPv4].Value != nil
		}
	}
	require.Eventually(t, has(device.Online), patience, time.Millisecond)
	known := time.Now()
	t.Logf("known %s after the device started; %d events so far", time.Since(begin).Round(time.Millisecond), s.count())
	d := e.Devices()[0]
	require.Equal(t, lan.mac, d.MAC, "the router is no device")
	require.Equal(t, `"kitchen-tv"`, string(d.Attributes[device.AttrHostname].Value))

	// It says nothing by itself: that it is heard of long after is its answers to
	// probes. (A machine that stands still for as long may take it offline, until
	// the next answer.)
	require.Eventually(t, func() bool {
		d := e.Devices()[0]
		return d.Status == device.Online && d.Last.After(known.Add(3*time.Second))
	}, patience, 20*time.Millisecond)
	lan.leave()
	gone := time.Now()
	require.Eventually(t, has(device.Offline), patience, 10*time.Millisecond)
	t.Logf("offline %s after it vanished", time.Since(gone).Round(time.Millisecond))
	cancel()
	require.NoError(t, <-done)
	requireEqualRecords(t, s, e.Devices())
	events := s.all()
	last := events[len(events)-1]
	require.Equal(t, device.Delta, last.Type)
	require.Equal(t, `"offline"`, string(last.Attributes[device.AttrConnectionStatus].Value))
}

// testLAN is a LAN with one device, all of it in this process's namespace and
// in one that ends with the process that holds it.
type testLAN struct {
	t      *testing.T
	mac    string
	holder *exec.Cmd
}

func newLAN(t *testing.T) *testLAN {
	l := &testLAN{t: t, mac: "4c:b1:17:00:00:01"}
	l.run("ip", "link", "set", "lo", "up")
	l.holder = exec.Command("unshare", "-n", "sleep", "600")
	require.NoError(t, l.holder.Start())
	t.Cleanup(l.leave)
	l.run("ip", "link", "add", "rc-lan", "type", "veth", "peer", "name", "eth0", "address", l.mac)
	require.Eventually(t, func() bool { // until the holder is in its namespace
		own, _ := os.Readlink("/proc/self/ns/net")
		its, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", l.holder.Process.Pid))
		return err == nil && own != its
	}, patience, time.Millisecond)
	l.run("ip", "link", "set", "eth0", "netns", fmt.Sprint(l.holder.Process.Pid))
	l.run("ip", "addr", "add", "192.168.99.1/24", "dev", "rc-lan")
	l.run("ip", "link", "set", "rc-lan", "up")
	dhcp := exec.Command("dnsmasq", "--no-daemon", "--no-ping", "--conf-file=/dev/null", "--port=0", "--interface=rc-lan", "--bind-interfaces",
		"--dhcp-range=192.168.99.50,192.168.99.99,1h", "--dhcp-leasefile="+filepath.Join(t.TempDir(), "leases"), "--user=root")
	require.NoError(t, dhcp.Start())
	t.Cleanup(func() { _ = dhcp.Process.Kill(); _ = dhcp.Wait() })
	return l
}

func (l *testLAN) run(name string, args ...string) {
	out, err := exec.Command(name, args...).CombinedOutput()
	require.NoError(l.t, err, "%s %v: %s", name, args, out)
}

func (l *testLAN) inside(name string, args ...string) {
	l.run("nsenter", append([]string{"-t", fmt.Sprint(l.holder.Process.Pid), "-n", name}, args...)...)
}

// join brings the device's interface up and gets a lease.
func (l *testLAN) join(hostname string) {
	script := filepath.Join(l.t.TempDir(), "lease.sh")
	require.NoError(l.t, os.WriteFile(script, []byte("#!/bin/sh\n[ \"$1\" = bound ] && ip addr add $ip/24 dev $interface\nexit 0\n"), 0o755))
	l.inside("ip", "link", "set", "eth0", "up", "addrgenmode", "none") // it would solicit IPv6 routers
	l.inside("udhcpc", "-i", "eth0", "-q", "-n", "-t", "20", "-T", "1", "-x", "hostname:"+hostname, "-s", script)
}

// leave takes the device away without a word.
func (l *testLAN) leave() {
	if l.holder != nil {
		_ = l.holder.Process.Kill()
		_ = l.holder.Wait()
		l.holder = nil
	}
}
