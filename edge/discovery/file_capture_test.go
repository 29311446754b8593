package discovery_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/edge/discovery"
)

// pcapBytes writes frames one recorded second apart.
func pcapBytes(t testing.TB, link layers.LinkType, frames ...[]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := pcapgo.NewWriterNanos(&b)
	require.NoError(t, w.WriteFileHeader(65536, link))
	for i, f := range frames {
		require.NoError(t, w.WritePacket(capture(i, f), f))
	}
	return b.Bytes()
}

func pcapngBytes(t testing.TB, link layers.LinkType, frames ...[]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := pcapgo.NewNgWriter(&b, link)
	require.NoError(t, err)
	for i, f := range frames {
		require.NoError(t, w.WritePacket(capture(i, f), f))
	}
	require.NoError(t, w.Flush())
	return b.Bytes()
}

func capture(i int, f []byte) gopacket.CaptureInfo {
	return gopacket.CaptureInfo{Timestamp: noon.Add(time.Duration(i) * time.Second), CaptureLength: len(f), Length: len(f)}
}

func save(t testing.TB, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "lan.pcap")
	require.NoError(t, os.WriteFile(path, content, 0o600))
	return path
}

func open(t testing.TB, o discovery.FileOptions) *discovery.FileCapture {
	t.Helper()
	src, err := discovery.OpenFile(o)
	require.NoError(t, err)
	t.Cleanup(func() { src.Close() })
	return src
}

func threeFrames(t testing.TB) [][]byte {
	return [][]byte{arpFrame(t, tvMAC, tvIP), ssdpFrame(t, "M-SEARCH * HTTP/1.1"), arpFrame(t, tvMAC, "10.0.0.21")}
}

func TestFileFormats(t *testing.T) {
	frames := threeFrames(t)
	plain := pcapBytes(t, layers.LinkTypeEthernet, frames...)
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, err := z.Write(plain)
	require.NoError(t, err)
	require.NoError(t, z.Close())
	for name, content := range map[string][]byte{
		"pcap": plain, "pcapng": pcapngBytes(t, layers.LinkTypeEthernet, frames...), "gzip": zipped.Bytes(),
	} {
		t.Run(name, func(t *testing.T) {
			src := open(t, discovery.FileOptions{Path: save(t, content)})
			for i, want := range frames {
				f, err := src.Next(t.Context())
				require.NoError(t, err)
				require.Equal(t, want, f.Data)
				require.EqualValues(t, i+1, f.Index)
				require.True(t, noon.Add(time.Duration(i)*time.Second).Equal(f.Recorded), f.Recorded)
				require.Equal(t, discovery.LinkEthernet, f.LinkType)
			}
			for range 2 {
				_, err := src.Next(t.Context())
				require.Equal(t, io.EOF, err)
			}
		})
	}
}

// Wherever a file ends, every whole frame is delivered, and an end inside a record is told.
func TestFileTruncatedAnywhere(t *testing.T) {
	frames := threeFrames(t)
	for name, content := range map[string][]byte{
		"pcap": pcapBytes(t, layers.LinkTypeEthernet, frames...), "pcapng": pcapngBytes(t, layers.LinkTypeEthernet, frames...),
	} {
		t.Run(name, func(t *testing.T) {
			path := save(t, nil)
			clean := 0
			for size := 4; size <= len(content); size++ {
				require.NoError(t, os.WriteFile(path, content[:size], 0o600))
				src, err := discovery.OpenFile(discovery.FileOptions{Path: path})
				if err != nil {
					require.ErrorIs(t, err, discovery.ErrTruncated)
					require.ErrorContains(t, err, path)
					continue
				}
				whole := int64(0)
				for err == nil {
					var f discovery.Frame
					if f, err = src.Next(t.Context()); err == nil {
						whole++
						require.Equal(t, frames[f.Index-1], f.Data)
					}
				}
				src.Close()
				if errors.Is(err, io.EOF) && !errors.Is(err, discovery.ErrTruncated) {
					clean++
					continue
				}
				require.ErrorIs(t, err, discovery.ErrTruncated, "at %d bytes", size)
				require.ErrorContains(t, err, path)
				require.ErrorContains(t, err, "at byte")
			}
			require.Equal(t, len(frames)+1, clean, "the file ends well after its header and after each frame")
		})
	}
}

func TestFileRefused(t *testing.T) {
	arp := arpFrame(t, tvMAC, tvIP)
	corrupt := pcapBytes(t, layers.LinkTypeEthernet, arp, arp)
	binary.LittleEndian.PutUint32(corrupt[24+8:], 1<<30)
	cases := []struct {
		name    string
		content []byte
		want    error
		message string
	}{
		{"empty", nil, discovery.ErrEmptyCapture, ""},
		{"text", []byte("hello world"), discovery.ErrNotCapture, "68656c6c"},
		{"two bytes", []byte{0xd4, 0xc3}, discovery.ErrNotCapture, ""},
		{"link type", pcapBytes(t, layers.LinkTypeLinuxSLL, arp), discovery.ErrLinkType, "link type 113"},
		{"link type in pcapng", pcapngBytes(t, layers.LinkTypeRaw, arp), discovery.ErrLinkType, "link type 101"},
		{"corrupt", corrupt, discovery.ErrCorrupt, "frame 1 at byte 24"},
		{"bad gzip", []byte{0x1f, 0x8b, 0, 0}, discovery.ErrNotCapture, "gzip"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			path := save(t, c.content)
			src, err := discovery.OpenFile(discovery.FileOptions{Path: path})
			if err == nil {
				_, err = src.Next(t.Context())
				src.Close()
			}
			require.ErrorIs(t, err, c.want)
			require.ErrorContains(t, err, path)
			require.ErrorContains(t, err, c.message)
		})
	}
	_, err := discovery.OpenFile(discovery.FileOptions{Path: "no/such/file"})
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = discovery.OpenFile(discovery.FileOptions{Path: t.TempDir()})
	require.ErrorIs(t, err, discovery.ErrNotCapture)
	_, err = discovery.OpenFile(discovery.FileOptions{Path: "x", Speed: -1})
	require.ErrorContains(t, err, "must not be negative")
}

// clock is a time that passes only by waiting.
type clock struct {
	now   time.Time
	waits []time.Duration
}

func (c *clock) options(path string, speed float64) discovery.FileOptions {
	return discovery.FileOptions{
		Path: path, Speed: speed, Now: func() time.Time { return c.now },
		Wait: func(ctx context.Context, d time.Duration) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			c.now = c.now.Add(d)
			c.waits = append(c.waits, d)
			return nil
		},
	}
}

func TestFilePace(t *testing.T) {
	path := save(t, pcapBytes(t, layers.LinkTypeEthernet, threeFrames(t)...))
	today := noon.AddDate(10, 0, 0)
	times := func(o discovery.FileOptions) (offsets []time.Duration, indexes []int64) {
		src := open(t, o)
		for {
			f, err := src.Next(t.Context())
			if errors.Is(err, io.EOF) {
				return offsets, indexes
			}
			require.NoError(t, err)
			offsets = append(offsets, f.Time.Sub(today))
			indexes = append(indexes, f.Index)
		}
	}
	t.Run("as recorded", func(t *testing.T) {
		c := &clock{now: today}
		offsets, _ := times(c.options(path, 1))
		require.Equal(t, []time.Duration{0, time.Second, 2 * time.Second}, offsets)
		require.Equal(t, []time.Duration{time.Second, time.Second}, c.waits)
	})
	t.Run("ten times", func(t *testing.T) {
		c := &clock{now: today}
		offsets, _ := times(c.options(path, 10))
		require.Equal(t, []time.Duration{0, 100 * time.Millisecond, 200 * time.Millisecond}, offsets)
	})
	t.Run("as fast as it goes", func(t *testing.T) {
		c := &clock{now: today}
		offsets, _ := times(c.options(path, 0))
		require.Equal(t, []time.Duration{0, 0, 0}, offsets)
		require.Empty(t, c.waits)
	})
	t.Run("pauses cut", func(t *testing.T) {
		c := &clock{now: today}
		o := c.options(path, 1)
		o.MaxGap = 10 * time.Millisecond
		offsets, _ := times(o)
		require.Equal(t, []time.Duration{0, 10 * time.Millisecond, 20 * time.Millisecond}, offsets)
	})
	t.Run("resumed", func(t *testing.T) {
		c := &clock{now: today}
		o := c.options(path, 1)
		o.StartAt = 1
		offsets, indexes := times(o)
		require.Equal(t, []time.Duration{0, time.Second}, offsets, "the frames that were skipped take no time")
		require.Equal(t, []int64{2, 3}, indexes)
	})
}

func TestFileNextCancelledKeepsTheFrame(t *testing.T) {
	c := &clock{now: noon}
	src := open(t, c.options(save(t, pcapBytes(t, layers.LinkTypeEthernet, threeFrames(t)...)), 1))
	_, err := src.Next(t.Context())
	require.NoError(t, err)
	wait, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = src.Next(wait)
	require.ErrorIs(t, err, context.Canceled)
	f, err := src.Next(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 2, f.Index)
}

func TestLearnLAN(t *testing.T) {
	announce := udpFrame(t, routerMAC, "8.8.8.8", tvIP, 53, 4000, []byte("x"))
	content := pcapBytes(t, layers.LinkTypeEthernet, arpFrame(t, tvMAC, tvIP), announce, announce)
	lan, err := discovery.LearnLAN(t.Context(), save(t, content[:len(content)-1]), discovery.LAN{}, 0)
	require.NoError(t, err, "a truncated file is read as far as it goes")
	require.True(t, lan.Router(routerMAC))

	lan, err = discovery.LearnLAN(t.Context(), save(t, content), discovery.LAN{}, 1)
	require.NoError(t, err)
	require.False(t, lan.Router(routerMAC), "past the bytes to scan")
}
