# Holds counts of instructions against those that were accepted: awk -f hack/instructions.awk ACCEPTED COUNTED.
# More than a twentieth more is a failure, and so is a count without its other half. A step of
# a thousand instructions differs by hundreds for the same work: so little more is none.
BEGIN { most = 1.05; little = 500 }

FNR == NR { accepted[$1] = $2; next }

{
    name = $1
    seen[name] = 1
    if (!(name in accepted)) {
        report(name, "not accepted yet: make bench-accept", 0)
        next
    }
    change = $2 / accepted[name]
    is_good = $2 <= accepted[name] * most + little
    text = sprintf("%d instructions, %+.1f %%", $2, (change - 1) * 100)
    if (!is_good) text = text " against " accepted[name] "; make bench-accept if it is worth it"
    report(name, text, is_good)
}

END {
    for (name in accepted) if (!(name in seen)) report(name, "accepted, but not counted", 0)
    exit failed
}

function report(name, text, is_good) {
    printf "test %s: %s ... %s\n", name, text, is_good ? "ok" : "FAILED"
    if (!is_good) failed = 1
}
