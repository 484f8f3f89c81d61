namespace Cbd.Control.Api;

/// <summary>Who asked for something, and is neither root nor the user of the daemon: the kernel's word for the other end of a control socket.</summary>
/// <param name="UserId">The user.</param>
/// <param name="GroupId">Its first group.</param>
/// <param name="Groups">Its other groups.</param>
internal sealed record Caller(uint UserId, uint GroupId, IReadOnlyList<uint> Groups)
{
    public bool Equals(Caller? other) =>
        other is not null && UserId == other.UserId && GroupId == other.GroupId && Groups.SequenceEqual(other.Groups);

    public override int GetHashCode() => HashCode.Combine(UserId, GroupId, Groups.Count);

    public override string ToString() => $"uid {UserId}";
}
