package discovery_test

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/rollcall-platform/rollcall/edge/discovery"
	"github.com/rollcall-platform/rollcall/internal/device"
)

// liveLAN is a veth pair: "lan0" in one network namespace, the router's side, and "dut0" in another.
type liveLAN struct {
	router, device netns.NsHandle
	mac            string // of dut0
}

// newLiveLAN moves the test's goroutine into the router's namespace until the test ends.
func newLiveLAN(t *testing.T) *liveLAN {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for network namespaces; run it with sudo, or in unshare -Urn")
	}
	runtime.LockOSThread()
	home, err := netns.Get()
	require.NoError(t, err)
	l := &liveLAN{}
	l.device, err = netns.New()
	if err != nil {
		t.Skipf("cannot make a network namespace: %v", err)
	}
	l.router, err = netns.New()
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, netns.Set(home))
		l.device.Close()
		l.router.Close()
		home.Close()
		runtime.UnlockOSThread()
	})
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "lan0"
	require.NoError(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "dut0", PeerNamespace: netlink.NsFd(int(l.device))}))
	l.up(t, "lan0", "10.9.0.1/24")
	l.in(t, l.device, func() {
		l.up(t, "dut0", "10.9.0.2/24")
		iface, err := net.InterfaceByName("dut0")
		require.NoError(t, err)
		l.mac = iface.HardwareAddr.String()
		carrier(t, "dut0")
	})
	carrier(t, "lan0")
	return l
}

func (l *liveLAN) up(t *testing.T, name, cidr string) {
	t.Helper()
	link, err := netlink.LinkByName(name)
	require.NoError(t, err)
	addr, err := netlink.ParseAddr(cidr)
	require.NoError(t, err)
	require.NoError(t, netlink.AddrAdd(link, addr))
	require.NoError(t, netlink.LinkSetUp(link))
}

// carrier waits until the kernel passes frames: before, it drops them silently. It polls by itself
// because require.Eventually would look from another thread, in another namespace.
func carrier(t *testing.T, name string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		link, err := netlink.LinkByName(name)
		require.NoError(t, err)
		if link.Attrs().OperState == netlink.OperUp {
			return
		}
		require.True(t, time.Now().Before(deadline), "%s has no carrier", name)
	}
}

// in runs f in a namespace and comes back to the router's.
func (l *liveLAN) in(t *testing.T, ns netns.NsHandle, f func()) {
	t.Helper()
	require.NoError(t, netns.Set(ns))
	defer func() { require.NoError(t, netns.Set(l.router)) }()
	f()
}

// await parses live frames until an observation meets the condition.
func await(t *testing.T, src discovery.Capture, parser *discovery.Parser, what string, met func(discovery.Observation) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		f, err := src.Next(ctx)
		require.NoError(t, err, "waiting for %s", what)
		require.WithinDuration(t, time.Now(), f.Time, time.Minute)
		for _, o := range parser.Parse(f) {
			if met(o) {
				return
			}
		}
	}
}

func TestLive(t *testing.T) {
	l := newLiveLAN(t)
	stats, err := discovery.NewStats(nil)
	require.NoError(t, err)
	src, err := discovery.OpenLive(discovery.LiveOptions{Interface: "lan0", Stats: stats, SampleTraffic: 1})
	require.NoError(t, err)
	defer src.Close()

	require.Contains(t, src.LAN().Prefixes, netip.MustParsePrefix("10.9.0.0/24"))
	for _, source := range discovery.RegisteredSources() {
		for _, group := range source.Groups {
			require.Contains(t, joinedGroups(t), group, "multicast group of %s", source.Name)
		}
	}
	parser := discovery.NewParser(discovery.Options{LAN: src.LAN(), Stats: stats})

	require.NoError(t, src.SendARP(netip.MustParseAddr("10.9.0.2")))
	await(t, src, parser, "the answer to an ARP probe", func(o discovery.Observation) bool {
		return o.MAC == l.mac && o.Kind == discovery.KindARP && o.Set[device.AttrIPv4] == "10.9.0.2"
	})
	require.ErrorContains(t, src.SendARP(netip.MustParseAddr("10.8.0.2")), "not on the LAN")

	for port, group := range map[int]string{1900: "239.255.255.250", 5353: "224.0.0.251"} {
		l.in(t, l.device, func() { sendMulticast(t, "dut0", group, port) })
	}
	kinds := map[string]bool{}
	await(t, src, parser, "SSDP and mDNS", func(o discovery.Observation) bool {
		if o.MAC == l.mac && o.Set[device.AttrIPv4] == "10.9.0.2" {
			kinds[o.Kind] = true
		}
		return kinds[discovery.KindSSDP] && kinds[discovery.KindMDNS]
	})
	require.Empty(t, stats.Snapshot().Malformed)

	short, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = src.Next(short)
	require.ErrorIs(t, err, context.Canceled)

	l.in(t, l.device, func() { sendMulticast(t, "dut0", "239.255.255.250", 1900) })
	await(t, src, parser, "a frame after a cancelled Next", func(o discovery.Observation) bool { return o.Kind == discovery.KindSSDP })

	link, err := netlink.LinkByName("lan0")
	require.NoError(t, err)
	require.NoError(t, netlink.LinkDel(link))
	for err = nil; err == nil; {
		_, err = src.Next(t.Context())
	}
	require.ErrorIs(t, err, discovery.ErrInterfaceGone)
	require.ErrorContains(t, err, "lan0")
}

// joinedGroups reads the multicast groups that sockets of this thread's namespace have joined.
func joinedGroups(t *testing.T) []netip.Addr {
	var joined []netip.Addr
	for _, file := range []string{"igmp", "igmp6"} {
		b, err := os.ReadFile("/proc/thread-self/net/" + file)
		require.NoError(t, err)
		for _, field := range strings.Fields(string(b)) {
			raw, err := hex.DecodeString(field)
			if err == nil && len(raw) == 4 { // in the byte order of the host
				binary.NativeEndian.PutUint32(raw, binary.BigEndian.Uint32(raw))
			}
			if addr, ok := netip.AddrFromSlice(raw); err == nil && ok && addr.IsMulticast() {
				joined = append(joined, addr)
			}
		}
	}
	return joined
}

func TestLiveCloseEndsNext(t *testing.T) {
	newLiveLAN(t)
	stats, err := discovery.NewStats(nil)
	require.NoError(t, err)
	src, err := discovery.OpenLive(discovery.LiveOptions{Interface: "lan0", Stats: stats, SampleTraffic: -1})
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() {
		for {
			if _, err := src.Next(context.Background()); err != nil {
				ended <- err
				return
			}
		}
	}()
	require.NoError(t, src.Close())
	require.NoError(t, src.Close(), "closing twice is no fault")
	select {
	case err := <-ended:
		require.Error(t, err)
	case <-time.After(time.Minute):
		t.Fatal("Next did not end")
	}
}

// sendMulticast sends an SSDP search or an empty mDNS query from an interface of this namespace.
func sendMulticast(t *testing.T, name, group string, port int) {
	t.Helper()
	iface, err := net.InterfaceByName(name)
	require.NoError(t, err)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	require.NoError(t, err)
	defer unix.Close(fd)
	require.NoError(t, unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Ifindex: int32(iface.Index)}))
	payload := make([]byte, 12)
	if port == 1900 {
		payload = ssdpText("M-SEARCH * HTTP/1.1", "ST: ssdp:all")
	}
	require.NoError(t, unix.Bind(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{10, 9, 0, 2}}))
	require.NoError(t, unix.Sendto(fd, payload, 0, &unix.SockaddrInet4{Port: port, Addr: netip.MustParseAddr(group).As4()}))
}

func TestLiveMissingInterface(t *testing.T) {
	stats, err := discovery.NewStats(nil)
	require.NoError(t, err)
	_, err = discovery.OpenLive(discovery.LiveOptions{Interface: "nope0", Stats: stats})
	require.ErrorIs(t, err, discovery.ErrNoInterface)
	require.ErrorContains(t, err, "nope0")
	require.ErrorContains(t, err, "lo", "lists the interfaces there are")

	_, err = discovery.OpenLive(discovery.LiveOptions{Interface: "lo", Stats: stats})
	require.Error(t, err, "not an Ethernet LAN")
}

// TestLiveWithoutPermission runs itself again as a user who may not capture.
func TestLiveWithoutPermission(t *testing.T) {
	const child = "ROLLCALL_TEST_UNPRIVILEGED"
	if name := os.Getenv(child); name != "" || os.Geteuid() != 0 {
		iface := ethernetName(t)
		stats, err := discovery.NewStats(nil)
		require.NoError(t, err)
		src, err := discovery.OpenLive(discovery.LiveOptions{Interface: iface, Stats: stats})
		if err == nil {
			src.Close()
			t.Skip("this user may capture")
		}
		require.ErrorIs(t, err, discovery.ErrPermission)
		require.ErrorContains(t, err, iface)
		require.ErrorContains(t, err, "CAP_NET_RAW")
		return
	}
	ethernetName(t)
	exe := "/proc/self/exe"
	f, err := os.Open(exe)
	require.NoError(t, err)
	defer f.Close()
	cmd := exec.Command("/proc/self/fd/3", "-test.run=^TestLiveWithoutPermission$", "-test.v")
	cmd.ExtraFiles = []*os.File{f}
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), child+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	require.Contains(t, string(out), "PASS: TestLiveWithoutPermission")
}

func ethernetName(t *testing.T) string {
	t.Helper()
	all, err := net.Interfaces()
	require.NoError(t, err)
	for _, i := range all {
		if len(i.HardwareAddr) == 6 {
			return i.Name
		}
	}
	t.Skip("needs an Ethernet interface in this network namespace")
	return ""
}
