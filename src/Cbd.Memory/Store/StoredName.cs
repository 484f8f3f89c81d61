namespace Cbd.Memory.Store;

/// <summary>
/// Names of descriptors in a store. The part before the first '-' says what the descriptor is: <c>fuse-LIFE-Q</c>, <c>inflight-LIFE-Q</c>,
/// <c>device-LIFE</c>, <c>nbd-NAME</c>, <c>nbdconn-NAME-ID</c>, <c>nbdstate-NAME-ID</c>, <c>program-next</c>. LIFE and ID are 16 hex digits, Q is a
/// queue's number, NAME a device's name.
/// </summary>
public static class StoredName
{
    /// <summary>A listening socket of an NBD device.</summary>
    public const string NbdPrefix = "nbd-";

    /// <summary>A connection of a client of an NBD device.</summary>
    public const string NbdConnectionPrefix = "nbdconn-";

    /// <summary>What was negotiated on a connection, and what was read ahead.</summary>
    public const string NbdStatePrefix = "nbdstate-";

    /// <summary>Longest name. All names of a store travel in one variable of an environment.</summary>
    public const int MostCharacters = 64;

    private static readonly (string Prefix, DescriptorKind Kind)[] s_kinds =
    [
        (NbdPrefix, DescriptorKind.Socket),
        (NbdConnectionPrefix, DescriptorKind.Socket),
        (NbdStatePrefix, DescriptorKind.Memory),
        ("fuse-", DescriptorKind.FuseChannel),
        ("inflight-", DescriptorKind.Memory),
        ("device-", DescriptorKind.Memory),
        ("program-", DescriptorKind.Memory),
    ];

    /// <summary>What a descriptor of that name has to be; null if it is no name of a stored descriptor.</summary>
    public static DescriptorKind? KindOf(string name)
    {
        foreach ((string prefix, DescriptorKind kind) in s_kinds)
        {
            if (name.StartsWith(prefix, StringComparison.Ordinal) && name.Length > prefix.Length && IsName(name))
                return kind;
        }

        return null;
    }

    /// <summary>Of such descriptors, in words.</summary>
    public static string Describe(DescriptorKind kind) => kind switch
    {
        DescriptorKind.Socket => "a socket",
        DescriptorKind.FuseChannel => "a channel of /dev/fuse",
        DescriptorKind.Memory => "a file in memory",
        DescriptorKind.Pipe => "a pipe",
        _ => "something else",
    };

    /// <summary>Letters, digits, '.', '_' and '-': nothing that ends a line, or a name in a list.</summary>
    private static bool IsName(string name) =>
        name.Length <= MostCharacters && name.All(c => char.IsAsciiLetterOrDigit(c) || c is '.' or '_' or '-');
}
