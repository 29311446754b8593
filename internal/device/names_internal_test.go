package device

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The first and the last of what is allowed, and what stands beside them in ASCII.
func TestNamesAtTheirBounds(t *testing.T) {
	for _, good := range []string{"a", "z", "0", "9", "-", "a-z0-9"} {
		require.True(t, Action(good).wellFormed(), good)
		require.NoError(t, CheckName(good))
	}
	for _, bad := range []string{"`", "{", "/", ":", ",", "A", "é", ""} {
		require.False(t, Action(bad).wellFormed(), bad)
		require.Error(t, CheckName(bad), bad)
	}
	require.False(t, Action("a_b").wellFormed())
	require.False(t, Action("a.b").wellFormed())
	require.NoError(t, CheckName("a_b.c"))
	require.Error(t, CheckName("a..b"))

	require.True(t, Action(strings.Repeat("a", maxActionBytes)).wellFormed())
	require.False(t, Action(strings.Repeat("a", maxActionBytes+1)).wellFormed())
	require.NoError(t, CheckName(strings.Repeat("a", MaxNameBytes)))
	require.Error(t, CheckName(strings.Repeat("a", MaxNameBytes+1)))
}

// Where an edge gives one seq two values, the bytes decide, and then the time; the
// order of arrival never does.
func TestOfOneSeqTheGreaterBytesWin(t *testing.T) {
	at := time.UnixMilli(1_700_000_000_000).UTC()
	low, high := Attribute{Value: []byte("1"), Seq: 3, At: at.Add(time.Hour)}, Attribute{Value: []byte("2"), Seq: 3, At: at}
	late := Attribute{Value: []byte("2"), Seq: 3, At: at.Add(time.Minute)}
	next := Attribute{Value: []byte("0"), Seq: 4, At: at}
	order := []Attribute{low, high, late, next}
	for i, a := range order {
		for j, b := range order {
			require.Equal(t, i > j, a.newer(b), "%d, %d", i, j)
		}
	}
}

func TestCanonicalRefusesWhatIsNoValue(t *testing.T) {
	for _, bad := range []string{``, `"`, `"abc`, `abc"`, `"a"b"`, `-`, `01`, `1a`, `nul`, `{"a":1`} {
		_, err := Canonical([]byte(bad))
		require.Error(t, err, bad)
	}
	nested := func(deep int) []byte { return []byte(strings.Repeat("[", deep) + strings.Repeat("]", deep)) }
	_, err := Canonical(nested(MaxValueDepth))
	require.NoError(t, err)
	_, err = Canonical(nested(MaxValueDepth + 1))
	require.Error(t, err)
}
