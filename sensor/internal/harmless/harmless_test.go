package harmless

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestText(t *testing.T) {
	for text, want := range map[string]string{
		"":                              "",
		"plain äöü 漢 עברית":             "plain äöü 漢 עברית",
		"e\u0301":                       "e\u0301",
		"line\nand\ttab\r":              `line\x0aand\x09tab\x0d`,
		"a\x1b[2Jb\x7f":                 `a\x1b[2Jb\x7f`,
		"C1 \u009b2J, raw \x9b2J":       `C1 \x9b2J, raw \x9b2J`,
		"cut \xe6\xbc":                  `cut \xe6\xbc`,
		"surrogate \xed\xa0\x80":        `surrogate \xed\xa0\x80`,
		"\u202agpj\u202e\u202c":         `\u202agpj\u202e\u202c`,
		"\u2066x\u2067\u2068\u2069":     `\u2066x\u2067\u2068\u2069`,
		"\u200e\u200f\u061c":            `\u200e\u200f\u061c`,
		"zero\u200b\u200c\u200d\u2060x": `zero\u200b\u200c\u200d\u2060x`,
		"\ufeffbom":                     `\ufeffbom`,
		"soft\u00adhyphen":              `soft\xadhyphen`,
		"\u2028\u2029":                  `\u2028\u2029`,
		"tag\U000e0041\U000e007f":       `tag\U000e0041\U000e007f`,
		"a\ufe0f\U000e0100\u180b":       `a\ufe0f\U000e0100\u180b`,
		"\ue000\U000f0000":              `\ue000\U000f0000`,
		"no-break\u00a0, wide\u3000":    `no-break\xa0, wide\u3000`,
		"fillers\u3164\u115f\uffa0":     `fillers\u3164\u115f\uffa0`,
		"braille\u2800, joiner\u034f":   `braille\u2800, joiner\u034f`,
		"\u0301first":                   `\u0301first`,
		"z" + strings.Repeat("\u0335", 6): "z" + strings.Repeat("\u0335", 4) +
			`\u0335\u0335`,
	} {
		if got := Text(text); got != want {
			t.Errorf("%+q: %s, want %s", text, got, want)
		}
	}
	if got := Except("a\n\tb\r", "\n\t"); got != "a\n\tb\\x0d" {
		t.Errorf("%q", got)
	}
}

func TestShort(t *testing.T) {
	for n, want := range []string{0: "…", 1: "a…", 2: "a…", 3: "a…", 4: "a漢…", 5: "a漢b"} {
		if got := Short("a漢b", n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
	if got := Short("\x80\x80\x80\x80\x80\x80", 5); got != `\x80\x80\x80\x80\x80…` {
		t.Errorf("%q", got)
	}
}

func FuzzText(f *testing.F) {
	for _, s := range []string{"", "plain", "\x00\x1b[31m\x7f", "é世界🎉", "\u2028\u202e\ufeff", "\xff", "a\xc3", "\xed\xa0\x80", "\U000e0041\u0301\u0301"} {
		f.Add(s, 3)
	}
	f.Fuzz(func(t *testing.T, s string, n int) {
		for _, got := range []string{Text(s), Short(s, n&0xfff)} {
			if !utf8.ValidString(got) {
				t.Errorf("%q is no UTF-8", got)
			}
			for _, r := range got {
				if !Visible(r) || unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || unicode.Is(unicode.Co, r) {
					t.Errorf("%U in %q", r, got)
				}
			}
			if again := Text(got); again != got {
				t.Errorf("twice: %q, once %q", again, got)
			}
		}
	})
}
