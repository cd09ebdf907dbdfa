package httpsend

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// TestCheck says what answers to the question mean: a server that refuses only the
// question is well.
func TestCheck(t *testing.T) {
	status := http.StatusOK
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodOptions || r.ContentLength > 0 {
			t.Errorf("%s with %d bytes", r.Method, r.ContentLength)
		}
		w.WriteHeader(status)
	}))
	defer s.Close()
	c := newClient(t, Options{URL: s.URL + "/hook"})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for want, all := range map[string][]int{
		"":                                      {200, 204, 403, 404, 405, 415, 501},
		"the credentials are missing or wrong":  {401},
		"redirects are not followed":            {301, 302, 307, 308},
		"use https:// in its address":           {400},
		"status 5":                              {500, 502, 503},
		"status 407 Proxy Authentication Requi": {407},
	} {
		for _, status = range all {
			err := c.Check(ctx)
			if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("status %d: %v, want %q", status, err, want)
			}
		}
	}
	s.Close()
	if err := c.Check(ctx); err == nil {
		t.Error("nobody listens, and all is well")
	}
}
