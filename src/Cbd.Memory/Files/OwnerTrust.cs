using System.Globalization;

namespace Cbd.Memory;

/// <summary>
/// Whose files and directories this process believes: root's, its own user's, and those of users that the operator names. Who owns a
/// directory, or may write to it, can put other files in the place of ours. Any thread.
/// </summary>
/// <param name="any">Everybody is trusted: nothing is checked.</param>
/// <param name="users">Users that are trusted, whatever the modes of their files are.</param>
public sealed class OwnerTrust(bool any = false, IReadOnlyCollection<uint>? users = null)
{
    private const uint WriteByOthers = 2;
    private const uint WriteByGroup = 0x10;
    private const uint Sticky = 0x200;
    private const int MostLinks = 40;

    /// <summary>In a user namespace, the owner of what belongs to users that it does not have.</summary>
    private const uint Unmapped = 65534;

    private static readonly Lazy<bool> s_hasAllUsers = new(HasAllUsers);

    private readonly uint _own = LibC.GetEffectiveUserId();

    /// <summary>Root and the own user alone.</summary>
    public static OwnerTrust Default { get; } = new();

    /// <summary>This process is root, so that others are strangers to it.</summary>
    public bool IsRoot => _own == 0;

    /// <summary>Such a user's files are believed.</summary>
    public bool Trusts(uint owner) => owner == 0 || owner == _own || IsNamed(owner);

    /// <summary>The operator answers for that user, and for the modes of its files.</summary>
    public bool IsNamed(uint owner) => any || (users?.Contains(owner) ?? false);

    /// <summary>
    /// Refuses a directory if another user owns it or can write to it, or to one on the way to it, or has made a link on that way. What is
    /// not there yet is left out.
    /// </summary>
    /// <param name="path">Absolute.</param>
    /// <param name="what">What it is, for the refusal, such as "run directory".</param>
    /// <param name="remedy">What else could be done, such as "give another one with --run-dir".</param>
    /// <param name="isShared">Others may have files of their own in it, as in /dev/shm.</param>
    /// <exception cref="CbdException">Denied: the directory, its owner and mode, and the remedy.</exception>
    public void CheckDirectory(string path, string what, string remedy, bool isShared = false)
    {
        if (any)
            return;
        string reached = "";
        int links = 0;
        var rest = new Stack<string>(path.Split('/', StringSplitOptions.RemoveEmptyEntries).Reverse());
        Check("/", isLast: rest.Count == 0 && !isShared);
        while (rest.TryPop(out string? name))
        {
            if (name == ".")
                continue;
            if (name == "..")
            {
                reached = reached.Length > 0 ? reached[..reached.LastIndexOf('/')] : "";
                continue;
            }

            string next = $"{reached}/{name}";
            if (FileStatus.TryGet(next, out FileStatus status, followLinks: false) != 0)
                return;
            if (status.Type != FileType.SymbolicLink)
            {
                reached = next;
                Check(next, isLast: rest.Count == 0 && !isShared);
                continue;
            }

            if (!Trusts(status.OwnerId) && !IsUnmapped(status.OwnerId))
                throw Refused(path, what, $"leads over the link '{next}' of {Name(status.OwnerId)}", remedy, status.OwnerId);
            if (++links > MostLinks || new FileInfo(next).LinkTarget is not { } target)
                return;
            if (target.StartsWith('/'))
                reached = "";
            foreach (string part in target.Split('/', StringSplitOptions.RemoveEmptyEntries).Reverse())
                rest.Push(part);
        }

        void Check(string directory, bool isLast)
        {
            if (FileStatus.TryGet(directory, out FileStatus status) != 0 || IsNamed(status.OwnerId))
                return;
            string which = rest.Count == 0 ? "" : $"is in '{directory}', which ";
            if (!Trusts(status.OwnerId) && !(IsUnmapped(status.OwnerId) && !isLast))
                throw Refused(path, what, $"{which}belongs to {Name(status.OwnerId)} (mode {Mode(status)})", $"{remedy}, or chown it", status.OwnerId);
            // In a directory with the sticky bit nobody can replace what is another's.
            bool byGroup = !isShared && IsRoot && status.GroupId != 0 && (status.Permissions & WriteByGroup) != 0;
            if ((status.Permissions & Sticky) == 0 && ((status.Permissions & WriteByOthers) != 0 || byGroup))
                throw Refused(path, what, $"{which}can be written by others (owner {Name(status.OwnerId)}, mode {Mode(status)})", $"{remedy}, or chmod {(byGroup ? "g-w,o-w" : "o-w")} '{directory}'", status.OwnerId);
            if (isLast && (status.Permissions & WriteByOthers) != 0)
                throw Refused(path, what, $"is for everybody to write to (mode {Mode(status)})", $"{remedy}, or chmod o-w '{directory}'", status.OwnerId);
        }
    }

    /// <summary>The mode in octal digits.</summary>
    public static string Mode(in FileStatus status) => "0" + Convert.ToString(status.Permissions, 8);

    /// <summary>A user as an operator knows it.</summary>
    public static string Name(uint user) => ControlSyscalls.FindUserName(user) is { } name ? $"{name} (uid {user.ToString(CultureInfo.InvariantCulture)})" : $"uid {user.ToString(CultureInfo.InvariantCulture)}";

    private static CbdException Refused(string path, string what, string why, string remedy, uint owner) =>
        new(CbdErrorKind.Denied, $"the {what} '{path}' {why}: {remedy}, or start cbdd with --trust-owner {owner.ToString(CultureInfo.InvariantCulture)}");

    private static bool IsUnmapped(uint owner) => owner == Unmapped && !s_hasAllUsers.Value;

    private static bool HasAllUsers()
    {
        try
        {
            return File.ReadAllText("/proc/self/uid_map").Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries) is ["0", "0", "4294967295"];
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return true;
        }
    }
}
