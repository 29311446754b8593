package registry_test

import (
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/rollcall-platform/rollcall/edge/registry"
)

func TestOpenSaysWhatIsWrongWithTheFile(t *testing.T) {
	cases := map[string]struct {
		prepare func(t *testing.T, path string)
		want    error
		text    string
	}{
		"locked by another process": {func(t *testing.T, path string) {
			db, err := bolt.Open(path, 0o600, nil)
			require.NoError(t, err)
			t.Cleanup(func() { _ = db.Close() })
		}, registry.ErrLocked, "is rollcall-edge already running"},
		"not a database": {func(t *testing.T, path string) {
			require.NoError(t, os.WriteFile(path, make([]byte, 20_000), 0o600))
		}, registry.ErrForeign, "move the file away"},
		"text": {func(t *testing.T, path string) {
			require.NoError(t, os.WriteFile(path, []byte("hello"), 0o600))
		}, registry.ErrForeign, "5 bytes"},
		"directory": {func(t *testing.T, path string) {
			require.NoError(t, os.Mkdir(path, 0o700))
		}, registry.ErrForeign, "not a regular file"},
		"database of another program": {func(t *testing.T, path string) {
			db, err := bolt.Open(path, 0o600, nil)
			require.NoError(t, err)
			require.NoError(t, db.Update(func(tx *bolt.Tx) error { _, err := tx.CreateBucket([]byte("x")); return err }))
			require.NoError(t, db.Close())
		}, registry.ErrForeign, "another program"},
		"another RAE's": {func(t *testing.T, path string) {
			r, err := registry.Open(registry.Options{Path: path, RAE: "RAE-2", Logger: slog.New(slog.DiscardHandler)})
			require.NoError(t, err)
			require.NoError(t, r.Close())
		}, registry.ErrForeign, `belongs to RAE "RAE-2", not "RAE-1"`},
		"cut off": {func(t *testing.T, path string) {
			info, err := os.Stat(written(t, path))
			require.NoError(t, err)
			require.NoError(t, os.Truncate(path, info.Size()/4))
		}, registry.ErrCorrupt, "move the file away"},
		"damaged record": {func(t *testing.T, path string) {
			db, err := bolt.Open(written(t, path), 0o600, nil)
			require.NoError(t, err)
			require.NoError(t, db.Update(func(tx *bolt.Tx) error {
				k, _ := tx.Bucket([]byte("records")).Cursor().First()
				return tx.Bucket([]byte("records")).Put(k, []byte("{"))
			}))
			require.NoError(t, db.Close())
		}, registry.ErrCorrupt, "record"},
		"damaged outbox": {func(t *testing.T, path string) {
			db, err := bolt.Open(written(t, path), 0o600, nil)
			require.NoError(t, err)
			require.NoError(t, db.Update(func(tx *bolt.Tx) error { return tx.Bucket([]byte("outbox")).Put([]byte("x"), []byte("{")) }))
			require.NoError(t, db.Close())
		}, registry.ErrCorrupt, "outbox"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "registry.db")
			c.prepare(t, path)
			_, err := registry.Open(registry.Options{Path: path, RAE: rae, Logger: slog.New(slog.DiscardHandler)})
			require.ErrorIs(t, err, c.want)
			require.ErrorContains(t, err, path)
			require.ErrorContains(t, err, c.text)
		})
	}
}

// written makes a registry with a good many pages.
func written(t *testing.T, path string) string {
	f := open(t, func(o *registry.Options) { o.Path = path })
	random := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		f.observe(step(random, start))
	}
	require.NoError(t, f.Close())
	t.Cleanup(func() { // for open's own cleanup
		require.NoError(t, os.RemoveAll(path))
		f.Registry, _ = registry.Open(f.o)
	})
	return path
}

// A damaged file must give an error or be readable; it must not end or hang the
// process. Every page is damaged once at its head and once anywhere: bbolt puts
// what it holds on other pages each time.
func TestDamageNeverPanics(t *testing.T) {
	path := written(t, filepath.Join(t.TempDir(), "registry.db"))
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	hurt := filepath.Join(t.TempDir(), "registry.db")
	require.NoError(t, os.WriteFile(hurt, whole, 0o600))
	f, err := os.OpenFile(hurt, os.O_WRONLY, 0)
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	random := rand.New(rand.NewPCG(5, 6))
	refused, pageSize := 0, os.Getpagesize()
	damage := make([]byte, 64)
	for page := 0; page < len(whole); page += pageSize {
		for _, at := range []int{page, page + random.IntN(pageSize-len(damage))} {
			for i := range damage {
				damage[i] = byte(random.Uint32())
			}
			_, err := f.WriteAt(damage, int64(at))
			require.NoError(t, err)
			if _, err := registry.Inspect(hurt, 10); err != nil {
				refused++
			}
			_, err = f.WriteAt(whole[at:at+len(damage)], int64(at))
			require.NoError(t, err)
		}
	}
	require.Positive(t, refused)
	_, err = registry.Inspect(hurt, 10)
	require.NoError(t, err, "all is as it was")
}
