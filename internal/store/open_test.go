package store_test

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOpenSessions(t *testing.T) {
	s, feeds := lab(t)
	walk := func(limit int, raes ...string) (got []string) {
		for after := ""; ; {
			page, err := s.OpenSessions(t.Context(), raes, after, limit)
			require.NoError(t, err)
			for _, of := range page {
				after = of.Session
				for key, f := range feeds {
					if f.id == of.Session {
						require.Equal(t, f.rae, of.RAE)
						got = append(got, key)
					}
				}
			}
			if len(page) < limit {
				return got
			}
		}
	}
	for limit := 1; limit <= 4; limit++ {
		require.ElementsMatch(t, []string{"tv", "roku", "phone"}, walk(limit), "the closed one is left out")
		require.ElementsMatch(t, []string{"tv", "roku"}, walk(limit, "rae-1", "rae-9"))
		require.Empty(t, walk(limit, "rae-9"))
	}
	_, err := s.OpenSessions(t.Context(), nil, "here", 1)
	require.ErrorContains(t, err, "not where a page ends")
}
