package rules

import (
	_ "embed"
	"regexp"
	"slices"
	"strings"
	"sync"
)

//go:embed techniques.txt
var techniquesText string

// techniques are the names of ATT&CK's techniques and subtechniques by their
// numbers.
var techniques = sync.OnceValue(func() map[string]string {
	names := make(map[string]string)
	for line := range strings.Lines(techniquesText) {
		if id, name, ok := strings.Cut(strings.TrimSpace(line), " "); ok && id != "#" {
			names[id] = name
		}
	}
	return names
})

// tactics are those of MITRE ATT&CK for Enterprise, by the name in a tag.
var tactics = map[string]ThreatEntry{
	"reconnaissance":       {ID: "TA0043", Name: "Reconnaissance"},
	"resource-development": {ID: "TA0042", Name: "Resource Development"},
	"initial-access":       {ID: "TA0001", Name: "Initial Access"},
	"execution":            {ID: "TA0002", Name: "Execution"},
	"persistence":          {ID: "TA0003", Name: "Persistence"},
	"privilege-escalation": {ID: "TA0004", Name: "Privilege Escalation"},
	"defense-evasion":      {ID: "TA0005", Name: "Defense Evasion"},
	"credential-access":    {ID: "TA0006", Name: "Credential Access"},
	"discovery":            {ID: "TA0007", Name: "Discovery"},
	"lateral-movement":     {ID: "TA0008", Name: "Lateral Movement"},
	"collection":           {ID: "TA0009", Name: "Collection"},
	"exfiltration":         {ID: "TA0010", Name: "Exfiltration"},
	"command-and-control":  {ID: "TA0011", Name: "Command and Control"},
	"impact":               {ID: "TA0040", Name: "Impact"},
}

var (
	techniqueTag = regexp.MustCompile(`^t([0-9]{4})(\.[0-9]{3})?$`)
	otherTag     = regexp.MustCompile(`^(g|s|c|m|ds)[0-9]{4}$`) // groups, software, campaigns, mitigations, data sources
)

// attackTag adds the entry of a tag, without its "attack.", to t. It reports
// whether there is such an entry.
func (t *Threat) attackTag(name string) bool {
	const framework, site = "MITRE ATT&CK", "https://attack.mitre.org/"
	name = strings.ToLower(name)
	if e, ok := tactics[strings.ReplaceAll(name, "_", "-")]; ok {
		e.Reference = site + "tactics/" + e.ID + "/"
		t.Framework, t.Tactics = framework, append(t.Tactics, e)
		return true
	}
	if m := techniqueTag.FindStringSubmatch(name); m != nil {
		id := "T" + m[1]
		// A subtechnique is one of a technique, whether a tag says so or not.
		if technique := (ThreatEntry{ID: id, Name: techniques()[id], Reference: site + "techniques/" + id + "/"}); !slices.Contains(t.Techniques, technique) {
			t.Techniques = append(t.Techniques, technique)
		}
		if m[2] != "" {
			t.Subtechniques = append(t.Subtechniques, ThreatEntry{
				ID: id + m[2], Name: techniques()[id+m[2]], Reference: site + "techniques/" + id + "/" + m[2][1:] + "/"})
		}
		t.Framework = framework
		return true
	}
	return otherTag.MatchString(name)
}
