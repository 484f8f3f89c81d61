using System.Globalization;

namespace Cbd.Control.Verbs;

/// <summary>
/// The original's adm attribute: <c>op=backend-start,path=/dev/sdb</c>. Options are separated by commas or newlines,
/// each is key=value, at most once, and only those of the op are taken. <c>force</c> can only be 1.
/// </summary>
internal sealed record AdmCommand
{
    private static readonly (string Op, string[] Required, string[] Optional)[] Ops =
    [
        ("backend-start", ["path"], ["backend_id"]),
        ("backend-stop", ["backend_id"], ["force"]),
        ("backend-clear", ["backend_id"], ["force"]),
        ("dev-start", ["backend_id"], ["queues"]),
        ("dev-stop", ["devid"], ["force"]),
    ];

    public required string Op { get; init; }
    public string? Path { get; init; }
    public int? Backend { get; init; }
    public int? Device { get; init; }
    public int? Queues { get; init; }
    public bool Force { get; init; }

    public static AdmCommand Parse(string text)
    {
        var options = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (var part in text.Split(',', '\n'))
        {
            if (part.Length == 0)
                continue;
            var equals = part.IndexOf('=', StringComparison.Ordinal);
            if (equals <= 0 || equals == part.Length - 1)
                throw Invalid($"adm option '{part}' is not key=value");
            var key = part[..equals] == "dev_id" ? "devid" : part[..equals];
            if (!options.TryAdd(key, part[(equals + 1)..]))
                throw Invalid($"adm option '{part[..equals]}' is given twice; give it once");
        }

        if (!options.Remove("op", out var op))
            throw Invalid($"adm has no op; use op= with one of {Names()}");
        foreach (var row in Ops)
        {
            if (row.Op == op)
                return Build(row.Op, row.Required, row.Optional, options);
        }

        throw Invalid($"adm op '{op}' is not known; use one of {Names()}");
    }

    /// <summary>Does it; returns the line to print, or null.</summary>
    public string? Execute(IControl control, int transport)
    {
        switch (Op)
        {
            case "backend-start":
                var path = PathText.FromCaller(Path!);
                return control.Execute(Operations.StartBackend, new StartBackendOptions { Transport = transport, Path = path, Backend = Backend })
                    .BackendId.ToString(CultureInfo.InvariantCulture);
            case "backend-stop":
                control.Execute(Operations.StopBackend, new StopRequest { Transport = transport, Id = Backend!.Value, Force = Force }).ThrowIfStopping();
                return null;
            case "backend-clear":
                control.Execute(Operations.ClearBackend, new ClearRequest { Transport = transport, Id = Backend!.Value, Force = Force });
                return null;
            case "dev-start":
                return control.Execute(
                    Operations.StartDevice, new StartDeviceOptions { Transport = transport, Backend = Backend!.Value, Queues = Queues }).Node;
            case "dev-stop":
                control.Execute(Operations.StopDevice, new StopRequest { Transport = transport, Id = Device!.Value, Force = Force }).ThrowIfStopping();
                return null;
            default:
                throw new InvalidOperationException($"adm op '{Op}' passed the parser and is not handled");
        }
    }

    private static AdmCommand Build(string op, string[] required, string[] optional, Dictionary<string, string> options)
    {
        foreach (var key in options.Keys)
        {
            if (!required.Contains(key) && !optional.Contains(key))
                throw Invalid($"adm op '{op}' has no option '{key}'; it takes {string.Join(", ", required.Concat(optional))}");
        }

        foreach (var key in required)
        {
            if (!options.ContainsKey(key))
                throw Invalid($"adm op '{op}' needs {key}=");
        }

        if (options.TryGetValue("force", out var force) && force != "1")
            throw Invalid($"adm option force is '{force}'; it can only be 1");
        return new AdmCommand
        {
            Op = op,
            Path = options.GetValueOrDefault("path"),
            Backend = Number(options, "backend_id"),
            Device = Number(options, "devid"),
            Queues = Number(options, "queues"),
            Force = force is not null,
        };
    }

    private static int? Number(Dictionary<string, string> options, string key)
    {
        if (!options.TryGetValue(key, out var text))
            return null;
        return int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var number)
            ? number
            : throw Invalid($"adm option {key} is '{text}', which is not a number from 0 on");
    }

    private static string Names() => string.Join(", ", Ops.Select(row => row.Op));

    private static CbdException Invalid(string message) => new(CbdErrorKind.Invalid, message);
}
