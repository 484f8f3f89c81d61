using Cbd.Protocol.Format;

namespace Cbd.Host.Devices;

/// <summary>Sees a device start and end, between its stores: for the simulator.</summary>
internal interface IDeviceObserver
{
    /// <summary>The entry is claimed, with the backend's writer word.</summary>
    void EntryClaimed();

    void ChannelClaimed(int channel, ClaimWord word);

    /// <summary>The device is active, and has seen that its backend is still the one that it claimed.</summary>
    void Activated();

    /// <summary>The device is over; its entry is given back next, or left to who clears this host.</summary>
    void Ended();
}
