package discovery_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/edge/discovery"
	"github.com/rollcall-platform/rollcall/internal/device"
)

// truth is what the devices of the recorded LAN knew of themselves (testdata/lan/README.md).
type truth struct {
	Router struct {
		MAC  string
		IPv4 string
		LAN  string
	}
	Devices []struct {
		MAC       string
		Kind      string
		Addresses []struct{ IPv4 string }
		HostNames []struct{ Name, Via string } `json:"host_names"`
		DHCP      *struct {
			VendorClass string  `json:"vendor_class"`
			ClientID    *string `json:"client_id"`
		}
		SSDP []struct {
			UDN, Server, Location string
			Types                 []string
		}
		MDNS  []struct{ Instance, Service string }
		Final struct {
			IPv4     *string
			HostName *string `json:"host_name"`
			Status   string
		}
	}
}

// TestRecordedLAN: every device of the recording comes out with every address and name it had and all it
// announced, in the end with the latest; nothing else comes out.
func TestRecordedLAN(t *testing.T) {
	const dir = "../../testdata/lan/"
	b, err := os.ReadFile(dir + "truth.json")
	require.NoError(t, err)
	var want truth
	require.NoError(t, json.Unmarshal(b, &want))

	devices, lan, stats := replay(t, dir+"lan.pcap")
	require.Empty(t, stats.Malformed)
	require.Empty(t, stats.Foreign)
	require.Equal(t, []string{want.Router.MAC}, slices.Collect(maps.Keys(lan.RouterMACs)))
	require.Len(t, lan.Prefixes, 1)
	require.Equal(t, want.Router.LAN, lan.Prefixes[0].String())
	require.NotContains(t, devices, want.Router.MAC)
	require.Len(t, devices, len(want.Devices))

	for _, w := range want.Devices {
		t.Run(strings.ReplaceAll(w.Kind, " ", "-")+"/"+w.MAC, func(t *testing.T) {
			got := devices[w.MAC]
			require.NotNil(t, got)
			for _, a := range w.Addresses {
				require.Contains(t, got.history[device.AttrIPv4], a.IPv4)
			}
			for _, h := range w.HostNames {
				attr := device.AttrMDNSHostnames
				if h.Via == "dhcp" {
					attr = device.AttrHostname
				}
				require.Contains(t, got.history[attr], h.Name)
			}
			if w.DHCP != nil {
				require.Equal(t, w.DHCP.VendorClass, text(got, device.AttrDHCPVendor))
				if w.DHCP.ClientID != nil {
					require.Equal(t, *w.DHCP.ClientID, text(got, device.AttrDHCPClientID))
				}
			}
			for _, s := range w.SSDP {
				require.Contains(t, got.history[device.AttrUDNs], s.UDN)
				for _, kind := range s.Types {
					if !strings.HasPrefix(kind, "uuid:") {
						require.Contains(t, got.history[device.AttrSSDPTypes], kind)
					}
				}
				require.Contains(t, got.history[device.AttrSSDPServer], s.Server)
				require.Contains(t, got.history[device.AttrSSDPLocation], s.Location)
			}
			for _, m := range w.MDNS {
				require.Contains(t, got.history[device.AttrMDNSServices], m.Service)
				require.Contains(t, got.history[device.AttrMDNSInstances], m.Instance+"."+m.Service)
			}
			require.Equal(t, deref(w.Final.IPv4), text(got, device.AttrIPv4))
			require.Equal(t, deref(w.Final.HostName), text(got, device.AttrHostname))
			require.Equal(t, w.Final.Status == "offline", got.last == discovery.Left, "status %s", w.Final.Status)
		})
	}
}

// A replay that is cut off anywhere and resumed observes what an uninterrupted one does.
func TestResumedReplayObservesTheSame(t *testing.T) {
	const path = "../../testdata/lan/lan.pcap"
	lan, err := discovery.LearnLAN(t.Context(), path, discovery.LAN{}, 0)
	require.NoError(t, err)
	observe := func(startAt int64) (said []string) {
		parser, _ := newParser(t, discovery.Options{LAN: lan})
		src := open(t, discovery.FileOptions{
			Path: path, StartAt: startAt, Now: func() time.Time { return noon },
			Skipped: func(f discovery.Frame) { parser.Parse(f) },
		})
		for {
			f, err := src.Next(t.Context())
			if errors.Is(err, io.EOF) {
				return said
			}
			require.NoError(t, err)
			for _, o := range parser.Parse(f) {
				said = append(said, fmt.Sprint(f.Index, " ", say(o)))
			}
		}
	}
	whole := observe(0)
	for _, cut := range []int64{1, 200, 700, 1200} {
		rest := observe(cut)
		require.NotEmpty(t, rest)
		require.Equal(t, whole[len(whole)-len(rest):], rest, "cut after frame %d", cut)
	}
}

func text(r *record, attr string) string {
	s, _ := r.values[attr].(string)
	return s
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
