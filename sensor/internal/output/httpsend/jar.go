package httpsend

import (
	"net/http"
	"net/url"
	"slices"
	"sync"
)

// jar keeps the cookies of the one server that a [Client] talks to. A load balancer
// finds with them the server again that has answered before: only that one knows
// what it has acknowledged. It looks neither at paths nor at the time.
type jar struct {
	mu      sync.Mutex
	host    string
	cookies []*http.Cookie
}

// SetCookies keeps the last ones, within limits.
func (j *jar) SetCookies(u *url.URL, cookies []*http.Cookie) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if u.Host != j.host {
		j.host, j.cookies = u.Host, nil
	}
	for _, c := range cookies {
		j.cookies = slices.DeleteFunc(j.cookies, func(old *http.Cookie) bool { return old.Name == c.Name })
		if c.MaxAge >= 0 && len(c.Name)+len(c.Value) <= maxCookie && (!c.Secure || u.Scheme == "https") {
			j.cookies = append(j.cookies, &http.Cookie{Name: c.Name, Value: c.Value})
		}
	}
	if n := len(j.cookies) - maxCookies; n > 0 {
		j.cookies = slices.Delete(j.cookies, 0, n)
	}
}

// Cookies is what goes with a request to u.
func (j *jar) Cookies(u *url.URL) []*http.Cookie {
	j.mu.Lock()
	defer j.mu.Unlock()
	if u.Host != j.host {
		return nil
	}
	return slices.Clone(j.cookies)
}
