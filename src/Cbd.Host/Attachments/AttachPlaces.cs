namespace Cbd.Host.Attachments;

/// <summary>Where attached devices are named on this machine. The directories are shared by all daemons.</summary>
internal sealed record AttachPlaces
{
    /// <summary>Where the links are made.</summary>
    public string Nodes { get; init; } = "/dev";

    /// <summary>Who has which name. Made if it is not there; udev's rule reads it.</summary>
    public string Registry { get; init; } = "/run/cbd-nodes";
}
