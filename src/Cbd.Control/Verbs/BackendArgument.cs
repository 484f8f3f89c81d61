using System.CommandLine;

namespace Cbd.Control.Verbs;

/// <summary>
/// How a command line says which backend: by its id, by what it is called, or by <c>HOST/NAME</c> where hosts have the same names.
/// A name is this host's backend first.
/// </summary>
internal static class BackendArgument
{
    public static Option<string?> Option(string description = "the backend: its id, or its name, as NAME or HOST/NAME", bool required = true) =>
        VerbOptions.Text("--backend", "-b", description, "N|NAME", required: required);

    /// <summary>The id. Throws NotFound if nothing is called so, Busy if several are.</summary>
    public static int Resolve(IControl control, int transport, string text) =>
        Verb.IsId(text, "--backend", out var id) ? id
        : TryFind(control, transport, text) is { } found ? found
        : throw new CbdException(CbdErrorKind.NotFound, $"no backend is called '{text}': see backend-list --all") { MayPass = true };

    public static int? TryFind(IControl control, int transport, string text)
    {
        var slash = text.LastIndexOf('/');
        var (host, name) = slash < 0 ? (null, text) : (text[..slash], text[(slash + 1)..]);
        Rules.CheckName(name, "backend");
        var named = control.Execute(Operations.ListBackends, new ListRequest { Transport = transport, All = true }).Where(b => b.BackendId >= 0 && b.Name == name).ToList();
        var hosts = control.Execute(Operations.ListHosts, new TransportTarget { Transport = transport });
        if (host is not null)
            named.RemoveAll(b => !hosts.Any(h => h.HostId == b.HostId && h.HostName == host));
        else if (named.Count > 1 && named.Where(b => hosts.Any(h => h.Mine && h.HostId == b.HostId)).ToList() is { Count: > 0 } own)
            named = own;
        if (named.Count > 1)
        {
            var all = named.Select(b => $"{hosts.FirstOrDefault(h => h.HostId == b.HostId)?.HostName ?? "?"}/{name} (backend {b.BackendId})");
            throw new CbdException(CbdErrorKind.Busy, $"'{text}' is more than one backend: {string.Join(", ", all)}: give HOST/NAME or the id");
        }

        return named.Count == 0 ? null : named[0].BackendId;
    }
}
