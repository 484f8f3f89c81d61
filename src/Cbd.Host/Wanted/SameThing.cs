using Cbd.Blocks;

namespace Cbd.Host.Wanted;

/// <summary>Whether two entries of a record are of one thing: what makes it that thing, and what is only an option of it.</summary>
internal static class SameThing
{
    /// <summary>The same file or device, or the same kind of disk without a file, whose size may have changed.</summary>
    public static bool IsSamePath(string a, string b) =>
        a == b || (StartBackendOptions.IsDiskScheme(a) && a.Split(':')[0] == b.Split(':')[0]);

    /// <summary>Two identities are of one disk for certain.</summary>
    public static bool IsSameDisk(string a, string b) => a == b || DiskIdentity.Compare(new DiskIdentity(a), new DiskIdentity(b)) == DiskComparison.Same;

    /// <summary>
    /// What is asked for without a name, or with one that nothing has, is this thing. A line of the command line still has the size that
    /// a disk without a file had at first.
    /// </summary>
    public static bool Matches(StateEntry entry, StateEntry wanted, bool isRun) => (entry, wanted) switch
    {
        ({ Transport: { } a }, { Transport: { } b }) => a.Region == b.Region,
        ({ Backend: { } a }, { Backend: { } b }) => a.Region == b.Region && (b.Name is null || a.Name is null || a.Name == b.Name) && (a.Path == b.Path || (isRun && IsSamePath(a.Path, b.Path))),
        ({ Device: { } a }, { Device: { } b }) => (b.Name is null || b.Name == a.Name) && FindDifference(a, b) is null,
        _ => false,
    };

    /// <summary>A caller may have an entry again that is its own; root and the daemon's user may have all.</summary>
    public static bool MayHave(StateEntry entry, Caller? caller) => caller is null || CallerOf(entry)?.UserId == caller.UserId;

    /// <summary>
    /// Throws Denied if a caller asks for a name, a disk or a region that is wanted by another user: it would keep that one from it for ever.
    /// </summary>
    public static void CheckCaller(StateEntry entry, Caller? caller)
    {
        if (!MayHave(entry, caller))
            throw new CbdException(CbdErrorKind.Denied, $"{entry} is wanted by {(CallerOf(entry) is { } other ? $"uid {other.UserId}" : "the user of cbdd, or root")}, and uid {caller!.UserId} asks for it: give another name or path, or stop that first ({entry.StopVerb})");
    }

    /// <summary>Who asked for it; null: root or the daemon's user.</summary>
    public static Caller? CallerOf(StateEntry entry) => entry.Transport?.Caller ?? entry.Backend?.Caller ?? entry.Device?.Caller;

    /// <summary>There can be only one of both: they have one name, or one disk, or one region. What has no name and no disk is another thing each time.</summary>
    public static bool IsOneQueue(StateEntry entry, StateEntry wanted) => entry.Region == wanted.Region && (entry, wanted) switch
    {
        ({ Transport: not null }, { Transport: not null }) => true,
        ({ Backend: { } a }, { Backend: { } b }) => (a.Name is not null && a.Name == b.Name) || (a.Path == b.Path && !StartBackendOptions.IsDiskScheme(a.Path)),
        ({ Device: { } a }, { Device: { } b }) => a.Name is not null && a.Name == b.Name,
        _ => false,
    };

    /// <summary>
    /// Throws Busy, with both, if what has the name that is asked for is another thing. The path of a backend that is away is a hint: whether
    /// it is the same disk is for its start to see.
    /// </summary>
    /// <param name="entry">What the record has.</param>
    /// <param name="wanted">What is asked for.</param>
    /// <param name="isSameFile">Whether two paths lead to one file or device now.</param>
    public static void Check(StateEntry entry, StateEntry wanted, Func<string, string, bool>? isSameFile = null)
    {
        var difference = (entry, wanted) switch
        {
            ({ Transport: { } a }, { Transport: { } b }) => entry.IsPending ? null : Differ("the name of this host", a.Host, b.Host),
            ({ Backend: { } a }, { Backend: { } b }) => (b.Name is null || a.Name is null ? null : Differ("the name", a.Name, b.Name)) ?? (IsSamePath(a.Path, b.Path) || (entry.IsPending && a.DiskIdentity is not null && !StartBackendOptions.IsDiskScheme(b.Path)) || isSameFile?.Invoke(a.Path, b.Path) == true ? null : $"its disk is '{a.Path}', and '{b.Path}' is asked for") ?? Differ("read-only", a.ReadOnly, b.ReadOnly) ?? Differ("the block size", a.BlockSize, b.BlockSize),
            ({ Device: { } a }, { Device: { } b }) => FindDifference(a, b),
            _ => null,
        };
        if (difference is not null)
            throw new CbdException(CbdErrorKind.Busy, $"{entry} is wanted already, and not the same: {difference}: stop it first ({entry.StopVerb}){(entry.Device is null ? "" : ", or give another --name")}");
    }

    /// <summary>The entry with the options of what is asked for; what makes it this thing stays.</summary>
    public static StateEntry WithOptions(StateEntry entry, StateEntry wanted) => (entry, wanted) switch
    {
        ({ Transport: { } a }, { Transport: { } b }) => entry with { Transport = b with { Uuid = a.Uuid, BootId = a.BootId, Caller = a.Caller } },
        ({ Backend: { } a }, { Backend: { } b }) => entry with { Backend = b with { BackendId = a.BackendId, Name = a.Name ?? b.Name, Path = a.Path, Caller = a.Caller, DiskIdentity = a.DiskIdentity } },
        ({ Device: { } a }, { Device: { } b }) => entry with { Device = b with { BlkdevId = a.BlkdevId, Name = a.Name, BackendId = a.BackendId, BackendPath = a.BackendPath, Caller = a.Caller, DiskIdentity = a.DiskIdentity } },
        _ => entry,
    };

    private static string? FindDifference(DeviceEntry a, DeviceEntry b) =>
        Differ("the region", a.Region, b.Region)
        ?? (IsSameDisk(a, b) ? null
            : $"it is on backend {a.BackendId} ('{a.BackendPath}'), and backend {b.BackendId} ('{b.BackendPath}') is asked for")
        ?? Differ("read-only", a.ReadOnly, b.ReadOnly)
        ?? Differ("the address", a.Nbd, b.Nbd)
        ?? Differ("the attachment", a.Attach, b.Attach)
        ?? (Equals(a.Tls, b.Tls) ? null : $"TLS is {Word(a.Tls?.Describe())} there, and {Word(b.Tls?.Describe())} is asked for");

    /// <summary>A backend that is not there now says nothing of its disk: its id has to do.</summary>
    private static bool IsSameDisk(DeviceEntry a, DeviceEntry b) =>
        a.DiskIdentity is { } known && b.DiskIdentity is { } asked ? IsSameDisk(known, asked)
        : a.BackendId == b.BackendId && (b.BackendPath.Length == 0 || IsSamePath(a.BackendPath, b.BackendPath));

    private static string? Differ<T>(string what, T a, T b) =>
        Equals(a, b) ? null : $"{what} is {Word(a)} there, and {Word(b)} is asked for";

    private static string Word<T>(T value) => value switch
    {
        null => "the default",
        true => "on",
        false => "off",
        _ => $"'{value}'",
    };
}
