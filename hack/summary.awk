# Counts what ran, by kind, for hack/test. Reads the list of steps, then the logs that name each test.
BEGIN {
    FS = "\t"
    count = split("formatting|clippy|crates alone|unit tests|property tests|documentation examples|" \
        "examples and docs|stale-file checks|API-server tests|node tests|browser tests|fault tests|instruction counts|demo", kinds, "|")
}

# The steps: those that are one check each count here, the others by their tests.
FILENAME ~ /steps.tsv$/ {
    status[$1] = $2
    times = times sprintf("  %s %ds", $1, $3)
    if ($1 == "formatting" || $1 == "clippy" || $1 == "demo")
        note($1, $2 == 0)
    next
}

# Which test binary speaks.
/^ +Running / {
    binary = $0
    sub(/.*\(/, "", binary)
    sub(/.*\//, "", binary)
    sub(/-[0-9a-f]+\)$/, "", binary)
}
/^ +Doc-tests / { binary = "doc" }

/^test .* \.\.\. (ok|FAILED)/ {
    note(FILENAME ~ /crates-alone/ ? "crates alone" : FILENAME ~ /instructions/ ? "instruction counts" : kind(binary, $0),
        $0 !~ /\.\.\. FAILED/)
}

# Where no node can run, which is a failure in CI and said loudly elsewhere.
/^NO FAULT IS TRIED HERE/ { absent["fault tests"] = 1 }
/^NO INSTRUCTIONS ARE COUNTED HERE/ { absent["instruction counts"] = 1 }

# What a test binary says of itself, to be held against what was counted.
/^test result: / {
    split($0, words, " ")
    said += words[4] + words[6]
    ignored += words[8]
}

function note(what, is_good) {
    if (is_good) passed[what]++; else failed[what]++
}

function kind(source, line) {
    if (source == "doc") return "documentation examples"
    # Over generated cases: against PodSecurityPolicy's own code, RBAC's rules, and on the API server.
    if (source == "fidelity" || source == "migration") return "property tests"
    if (source == "cluster" && line ~ /^test (admission|audit|compiled|ephemeral|future_fields|model|preview|psp|standards)::/) return "property tests"
    if (source == "cluster" || source == "control_plane") return "API-server tests"
    if (source == "chart" && line ~ /^test (generated|rendering)::/)
        return line ~ /^test generated::/ ? "stale-file checks" : "examples and docs"
    if (source == "chart") return "API-server tests"
    if (source == "faults") return "fault tests"
    if (source == "node") return line ~ /^test compatibility::the_page/ ? "stale-file checks" : "node tests"
    if (source == "browser") return line ~ /^test picture::/ ? "stale-file checks" : "browser tests"
    if (source == "program" && line ~ /^test crds::/) return "stale-file checks"
    if (source == "fast") return line ~ /^test reference::/ ? "stale-file checks" : "examples and docs"
    return "unit tests"
}

END {
    printf "\n%-24s %8s %8s\n", "", "passed", "failed"
    for (i = 1; i <= count; i++) {
        name = kinds[i]
        printf "%-24s %8d %8d\n", name, passed[name], failed[name]
        all_passed += passed[name]
        all_failed += failed[name]
        counted += (name ~ /tests|checks|examples/) ? passed[name] + failed[name] : 0
        if (passed[name] + failed[name] == 0 && !absent[name]) wrong = wrong "nothing ran: " name "\n"
    }
    print "\ntook:" times
    # A test binary that crashes, or does not compile, names no test.
    if (status["tests"] + status["traces"] != 0 && all_failed == 0)
        wrong = wrong "cargo test failed without naming a test\n"
    if (status["build"] != 0) wrong = wrong "cargo build failed\n"
    if (status["faults"] != 0 && failed["fault tests"] == 0)
        wrong = wrong "the fault suite ended without naming a fault\n"
    if (status["instructions"] != 0 && failed["instruction counts"] == 0) wrong = wrong "hack/count-instructions failed\n"
    if (status["crates-alone"] != 0 && failed["crates alone"] == 0) wrong = wrong "hack/check-alone failed\n"
    if (said != counted) wrong = wrong "the test binaries say that " said " tests ran, counted were " counted "\n"
    if (ignored > 0) wrong = wrong ignored " tests were ignored\n"
    if (wrong != "") {
        printf "%s", wrong
        all_failed += gsub(/\n/, "", wrong)
    }
    printf "%d passed, %d failed\n", all_passed, all_failed
    exit all_failed > 0
}
